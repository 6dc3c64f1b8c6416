package portmap

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/soap"
)

// fakeIGD is the service of a router that opens ports.
type fakeIGD struct {
	location  string
	control   string            // where requests go; as location if it is empty
	taken     map[uint16]string // by whom
	conflicts int               // so many calls fail, without a word before
	permanent bool              // it knows no lifetimes
	got       []uint16
	lease     uint32
}

func (f *fakeIGD) GetServiceClient() *goupnp.ServiceClient {
	at, err := url.Parse(f.location)
	if err != nil {
		panic(err)
	}
	control, err := at.Parse(f.control)
	if err != nil {
		panic(err)
	}
	return &goupnp.ServiceClient{RootDevice: &goupnp.RootDevice{URLBase: *at}, SOAPClient: soap.NewSOAPClient(*control)}
}

func (f *fakeIGD) LocalAddr() net.IP { return net.IPv4(192, 168, 0, 5) }

func (f *fakeIGD) GetExternalIPAddressCtx(context.Context) (string, error) { return "5.0.0.1", nil }

func (f *fakeIGD) GetSpecificPortMappingEntryCtx(_ context.Context, _ string, ext uint16, _ string) (uint16, string, bool, string, uint32, error) {
	if who, ok := f.taken[ext]; ok {
		return 4717, who, true, "", 0, nil
	}
	return 0, "", false, "", 0, fault(errNoEntry)
}

func (f *fakeIGD) AddPortMappingCtx(_ context.Context, _ string, ext uint16, proto string, _ uint16, client string, _ bool, _ string, lease uint32) error {
	switch {
	case f.conflicts > 0:
		f.conflicts--
		return fault(errConflict)
	case f.permanent && lease > 0:
		return fault(errPermanentOnly)
	case proto != "TCP" || client != f.LocalAddr().String():
		return errors.New("not what was to be opened")
	}
	f.got, f.lease = append(f.got, ext), lease
	return nil
}

func (f *fakeIGD) DeletePortMappingCtx(context.Context, string, uint16, string) error {
	return fault(errNoEntry)
}

func fault(code int) error {
	f := &soap.SOAPFaultError{}
	f.Detail.UPnPError.Errorcode = code
	return f
}

func TestUPnP(t *testing.T) {
	const same, other = "192.168.0.5", "192.168.0.6"
	for _, tt := range []struct {
		name   string
		igd    fakeIGD
		moved  bool
		lease  uint32
		failed bool
	}{
		{"free", fakeIGD{}, false, 1200, false},
		{"ours already", fakeIGD{taken: map[uint16]string{4717: same}}, false, 1200, false},
		{"another's", fakeIGD{taken: map[uint16]string{4717: other}}, true, 1200, false},
		{"a conflict", fakeIGD{conflicts: 1}, true, 1200, false},
		{"conflicts for ever", fakeIGD{conflicts: 99}, false, 0, true},
		{"no lifetimes", fakeIGD{permanent: true}, false, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.igd.location = "http://192.168.0.1:5000/x.xml"
			u, ok := newUPnP(&tt.igd)
			if !ok || u.addr != netip.MustParseAddr("192.168.0.1") {
				t.Fatalf("the router is at %v", u)
			}
			got, err := u.Open(t.Context(), port{"tcp", 4717}, 4717, 20*time.Minute)
			if (err != nil) != tt.failed {
				t.Fatalf("Open() = %v", err)
			}
			if tt.failed {
				return
			}
			if (got != 4717) != tt.moved || tt.igd.got[0] != got || tt.igd.lease != tt.lease {
				t.Errorf("port %d, opened %v for %d s", got, tt.igd.got, tt.igd.lease)
			}
			if err := u.Close(t.Context(), port{"tcp", 4717}, got); err != nil {
				t.Errorf("Close() of what is closed = %v", err)
			}
		})
	}
}

// A device of the LAN that sends others elsewhere is none.
func TestUPnPElsewhere(t *testing.T) {
	for _, at := range []string{"http://5.0.0.1/x", "http://router.example/x", "http://127.0.0.1:99/x"} {
		if _, ok := newUPnP(&fakeIGD{location: at}); ok {
			t.Errorf("%s was taken for a router", at)
		}
	}
	for control, want := range map[string]bool{
		"/ctl": true, "http://192.168.0.1:99/ctl": true, "http://5.0.0.1/ctl": false, "//router.example/ctl": false, "http://192.168.0.9/ctl": false,
	} {
		if _, ok := newUPnP(&fakeIGD{location: "http://192.168.0.1:5000/x.xml", control: control}); ok != want {
			t.Errorf("a router with its requests to %s was taken: %v", control, ok)
		}
	}
}
