package cli

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// keyPair is a certificate and its key in two files, which who renews them
// replaces while the page is served.
type keyPair struct {
	cert, key string
	stays     func(error) // is told, once for each change, why the one before stays

	mu sync.Mutex
	// guarded by mu
	now     *tls.Certificate // nil: none was read
	changed [2]time.Time     // of the files that it is from
	told    [2]time.Time     // of those that stays was told of
}

// get is for tls.Config. Files that cannot be used leave what was before.
func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	var changed [2]time.Time
	for i, path := range []string{k.cert, k.key} {
		if info, err := os.Stat(path); err == nil {
			changed[i] = info.ModTime()
		}
	}
	k.mu.Lock()
	now, known := k.now, k.changed
	k.mu.Unlock()
	if now != nil && changed == known {
		return now, nil
	}
	pair, err := tls.LoadX509KeyPair(k.cert, k.key)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.now, k.changed = &pair, changed
		return k.now, nil
	}
	err = fmt.Errorf("read certificate %s and key %s: %w", k.cert, k.key, err)
	if k.now == nil {
		return nil, err
	}
	if changed != k.told { // asked again each time: it may be half written
		k.told = changed
		k.stays(err)
	}
	return k.now, nil
}
