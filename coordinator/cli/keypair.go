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

	mu      sync.Mutex
	now     *tls.Certificate // guarded by mu; nil: none was read
	changed [2]time.Time     // guarded by mu; of the files that it is from
}

// get is for tls.Config. Files that cannot be used leave what was before.
func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var changed [2]time.Time
	for i, path := range []string{k.cert, k.key} {
		if info, err := os.Stat(path); err == nil {
			changed[i] = info.ModTime()
		}
	}
	if k.now != nil && changed == k.changed {
		return k.now, nil
	}
	pair, err := tls.LoadX509KeyPair(k.cert, k.key)
	switch {
	case err == nil:
		k.now, k.changed = &pair, changed
	case k.now == nil:
		return nil, fmt.Errorf("read certificate %s and key %s: %w", k.cert, k.key, err)
	}
	return k.now, nil
}
