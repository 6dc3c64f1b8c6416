package pull

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"github.com/ipfs/go-cid"
)

// What another implementation must write and read.
func TestVectors(t *testing.T) {
	c, err := cid.Decode("bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq") // "hello"
	if err != nil {
		t.Fatal(err)
	}
	if block(cid.Raw, []byte("hello")).Cid() != c {
		t.Fatalf("the CID of \"hello\" is %s", block(cid.Raw, []byte("hello")).Cid())
	}
	const hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	for name, tt := range map[string]struct {
		got  []byte
		want string
	}{
		"request":      {appendRequest(nil, c), "2401551220" + hash},
		"part":         {appendPartRequest(nil, c, span{256 << 10, 3}), "2401551220" + hash + "80801003"},
		"block header": {appendBlockHeader(nil, 1<<20), "00808040"},
		"have":         {appendHave(nil, 11, bitset{0x81, 0x04}), "000b8104"},
		"update":       {appendUpdate(nil, []entry{newEntry(0, kindHave), newEntry(100, kindAsked)}), "0200c901"},
		"keep alive":   {appendUpdate(nil, nil), "00"},
	} {
		if got := hex.EncodeToString(tt.got); got != tt.want {
			t.Errorf("%s is %s, want %s", name, got, tt.want)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(appendRequest(nil, leaf([]byte("a")).Cid()))
	f.Add(appendRequest(nil, fileNode(claim{leaf(nil), 1, 1}).Cid()))
	f.Add([]byte{0xa4, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		again(t, b, func(r *bufio.Reader) ([]byte, error) {
			c, err := readRequest(r)
			if err != nil {
				return nil, err
			}
			if err := checkCID(c); err != nil {
				t.Errorf("a request has a CID that is refused: %v", err)
			}
			return appendRequest(nil, c), nil
		})
	})
}

func FuzzPartRequest(f *testing.F) {
	f.Add(appendPartRequest(nil, leaf([]byte("a")).Cid(), span{0, 1}))
	f.Add(appendPartRequest(nil, leaf(nil).Cid(), span{1 << 18, 1 << 21}))
	f.Add(appendPartRequest(nil, leaf(nil).Cid(), span{1 << 22, 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		again(t, b, func(r *bufio.Reader) ([]byte, error) {
			c, part, err := readPartRequest(r)
			if err != nil {
				return nil, err
			}
			if part.n < 1 || part.from+part.n > 4<<20 {
				t.Errorf("a part of %d bytes from %d on", part.n, part.from)
			}
			return appendPartRequest(nil, c, part), nil
		})
	})
}

func FuzzBlockHeader(f *testing.F) {
	f.Add(appendBlockHeader(nil, 0))
	f.Add(appendBlockHeader(nil, 2<<20))
	f.Add([]byte{byte(statusBusy)})
	f.Fuzz(func(t *testing.T, b []byte) {
		again(t, b, func(r *bufio.Reader) ([]byte, error) {
			s, n, err := readBlockHeader(r)
			if err != nil {
				return nil, err
			}
			if s != statusOK {
				return []byte{byte(s)}, nil
			}
			return appendBlockHeader(nil, n), nil
		})
	})
}

func FuzzHave(f *testing.F) {
	f.Add(appendHave(nil, 11, bitset{0xff, 0x07}), uint16(11))
	f.Add(appendHave(nil, 11, bitset{0xff, 0x08}), uint16(11))
	f.Add(appendHave(nil, 0, nil), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, leaves uint16) {
		again(t, b, func(r *bufio.Reader) ([]byte, error) {
			s, have, err := readHave(r, int(leaves))
			if err != nil {
				return nil, err
			}
			if s != statusOK {
				return []byte{byte(s)}, nil
			}
			if n := have.count(); n > int(leaves) {
				t.Errorf("%d of %d leaves", n, leaves)
			}
			return appendHave(nil, int(leaves), have), nil
		})
	})
}

func FuzzUpdate(f *testing.F) {
	f.Add(appendUpdate(nil, []entry{1, 2, 3}), uint16(2))
	f.Add(appendUpdate(nil, []entry{1, 2, 4}), uint16(2))
	f.Add(appendUpdate(nil, nil), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, leaves uint16) {
		again(t, b, func(r *bufio.Reader) ([]byte, error) {
			es, err := readUpdate(r, int(leaves), nil)
			if err != nil {
				return nil, err
			}
			for _, e := range es {
				if e.leaf() >= int(leaves) {
					t.Errorf("leaf %d of %d", e.leaf(), leaves)
				}
			}
			return appendUpdate(nil, es), nil
		})
	})
}

// again decodes b and wants the same bytes when that is encoded, or an error
// that says why not.
func again(t *testing.T, b []byte, decode func(*bufio.Reader) ([]byte, error)) {
	t.Helper()
	in := bytes.NewReader(b)
	r := bufio.NewReader(in)
	got, err := decode(r)
	if err != nil {
		if !errors.Is(err, errProtocol) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("odd error %v", err)
		}
		return
	}
	used := len(b) - in.Len() - r.Buffered()
	if !bytes.Equal(got, b[:used]) {
		t.Errorf("%x was decoded and encoded to %x", b[:used], got)
	}
}
