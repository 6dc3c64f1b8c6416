package runner

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/moot-net/moot/proto/msg"
)

func rawCID(t testing.TB, s string) cid.Cid {
	t.Helper()
	h, err := multihash.Sum([]byte(s), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return cid.NewCidV1(cid.Raw, h)
}

func TestSyncRequestRoundTrip(t *testing.T) {
	r := syncRequest{Run: rawCID(t, "run"), Locator: []cid.Cid{rawCID(t, "b"), rawCID(t, "a")}}
	got, err := decodeSyncRequest(r.encode())
	if err != nil {
		t.Fatal(err)
	}
	if got.Run != r.Run || len(got.Locator) != 2 || got.Locator[1] != r.Locator[1] {
		t.Errorf("decode(encode(%v)) = %v", r, got)
	}
	for range maxLocator {
		r.Locator = append(r.Locator, r.Run)
	}
	if _, err := decodeSyncRequest(r.encode()); !errors.Is(err, errSyncFrame) {
		t.Errorf("a locator of %d records gave %v", len(r.Locator), err)
	}
	if _, err := decodeSyncRequest(nil); !errors.Is(err, errSyncFrame) {
		t.Errorf("an empty request gave %v", err)
	}
}

func TestSyncItemsRoundTrip(t *testing.T) {
	items := []syncItem{{Record: []byte("r1"), Certificate: []byte("c1")}, {Record: []byte("r2"), Certificate: []byte{}}}
	b := encodeSyncItems(items)
	got, err := decodeSyncItems(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(items, got); diff != "" {
		t.Error(diff)
	}
	for i := 1; i < len(b); i++ {
		got, err := decodeSyncItems(b[:i])
		if err == nil && !bytes.Equal(encodeSyncItems(got), b[:i]) {
			t.Errorf("the first %d bytes decode to something else", i)
		}
	}
	if _, err := decodeSyncItems([]byte{0x80, 0x00, 0x00}); !errors.Is(err, errSyncFrame) {
		t.Errorf("a length that is not in its shortest form gave %v", err)
	}
}

func FuzzSyncItems(f *testing.F) {
	f.Add(encodeSyncItems([]syncItem{{Record: []byte("r"), Certificate: nil}}))
	f.Add([]byte{1, 2, 3})
	f.Add(beforeRequest{Run: msg.RawCID([]byte("run")), Record: msg.RawCID([]byte("record")), Most: 300}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		items, err := decodeSyncItems(b)
		if err == nil && !bytes.Equal(encodeSyncItems(items), b) {
			t.Errorf("%x decodes and encodes to something else", b)
		}
		if r, err := decodeSyncRequest(b); err == nil && !bytes.Equal(r.encode(), b) {
			t.Errorf("request %x decodes and encodes to something else", b)
		}
		if r, err := decodeBeforeRequest(b); err == nil && !bytes.Equal(r.encode(), b) {
			t.Errorf("request %x for records before decodes and encodes to something else", b)
		}
	})
}

// A request for the records before one has one encoding.
func TestBeforeRequest(t *testing.T) {
	r := beforeRequest{Run: msg.RawCID([]byte("run")), Record: msg.RawCID([]byte("record")), Most: 300}
	b := r.encode()
	got, err := decodeBeforeRequest(b)
	if err != nil || got != r {
		t.Fatalf("%v, %v", got, err)
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "cut off": b[:len(b)-1], "longer": append(slices.Clone(b), 0), "no number": b[:74],
		"a long number": append(slices.Clone(b[:74]), 0x80, 0x00), "no CID": append([]byte{2, 1, 2}, b[37:]...),
	} {
		if _, err := decodeBeforeRequest(bad); !errors.Is(err, errSyncFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
