package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/moot-net/moot/node/api"
)

// originFile says beside an export where it is from, and what its bytes are.
const originFile = "moot.json"

const maxOriginBytes = 1 << 20

// origin is what an originFile holds. It is the same wherever a state is exported;
// an adapter that came from a folder has no run.
type origin struct {
	Schema  int    `json:"schema"`
	Format  string `json:"format"`
	Mode    string `json:"mode,omitempty"` // lora or full
	Run     string `json:"run,omitempty"`
	Round   uint64 `json:"round,omitempty"`
	Head    string `json:"head,omitempty"`
	State   string `json:"state,omitempty"`
	Model   string `json:"model,omitempty"` // CID
	Dataset string `json:"dataset,omitempty"`
	// MergedInto is as in api.Export.
	MergedInto string `json:"merged_into,omitempty"`
	// Files are all others but the model card, which people edit.
	Files []api.ExportFile `json:"files"`
	// SHA256 is of this file with nothing between its quotes.
	SHA256 string `json:"sha256"`
}

const originSchema = 1

// encode returns the bytes of the file.
func (o origin) encode() ([]byte, error) {
	o.SHA256 = ""
	b, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	o.SHA256 = hex.EncodeToString(sum[:])
	b, err = json.MarshalIndent(o, "", "  ")
	return append(b, '\n'), err
}

// errOriginDamaged is in the error for an origin file that is none.
var errOriginDamaged = errors.New("it is damaged, or was edited")

// readOrigin reads the origin file of a folder, nil if there is none.
func readOrigin(dir string) (*origin, error) {
	f, err := os.Open(filepath.Join(dir, originFile))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxOriginBytes+1))
	if err != nil {
		return nil, err
	}
	o := new(origin)
	if err := json.Unmarshal(b, o); err != nil {
		return nil, fmt.Errorf("%w: %w", errOriginDamaged, err)
	}
	if again, err := o.encode(); err != nil || !bytes.Equal(again, b) {
		return nil, errOriginDamaged
	}
	if o.Schema != originSchema {
		return nil, fmt.Errorf("it is of schema %d, this program knows %d", o.Schema, originSchema)
	}
	return o, nil
}

// differing lists which files of a folder are not those of its origin.
func (o *origin) differing(ctx context.Context, dir string) ([]string, error) {
	var list []string
	for _, want := range o.Files {
		if filepath.Base(want.Name) != want.Name {
			return nil, fmt.Errorf("%w: %q is no file beside it", errOriginDamaged, want.Name)
		}
		f, err := os.Open(filepath.Join(dir, want.Name))
		if os.IsNotExist(err) {
			list = append(list, want.Name+" is missing")
			continue
		}
		if err != nil {
			return nil, err
		}
		h := sha256.New()
		n, err := io.Copy(h, contextReader{ctx, f})
		_ = f.Close() // it was only read
		switch {
		case err != nil:
			return nil, err
		case n != want.Bytes:
			list = append(list, fmt.Sprintf("%s has %d bytes, must have %d", want.Name, n, want.Bytes))
		case hex.EncodeToString(h.Sum(nil)) != want.SHA256:
			list = append(list, want.Name+" has other bytes than when it was exported")
		}
	}
	return list, nil
}
