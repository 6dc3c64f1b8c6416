package volunteer

import (
	"errors"
	"io"
	"log"
	"sync"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/screensaver"
	"github.com/jezek/xgb/xproto"
)

// xServer is a connection to an X server, made when it is needed.
type xServer struct {
	open  func() (*xConn, error)
	conn  *xConn
	after time.Time
	err   error
}

// xConn is what is asked of an X server.
type xConn struct {
	c             *xgb.Conn
	root          xproto.Window
	active, state xproto.Atom
	full          xproto.Atom
	saver         error // why it does not tell since when there was no input
}

// silence takes away what xgb would print, which has nobody who reads it. Who
// reads from a connection that has just been closed may still print.
var silence = sync.OnceFunc(func() { xgb.Logger = log.New(io.Discard, "", 0) })

func openX() (*xConn, error) {
	silence()
	c, err := xgb.NewConn()
	if err != nil {
		return nil, err
	}
	// The server says some things unasked, such as that the keyboard is another one.
	// What is left lying fills a buffer, and then answers do not come either.
	go func() {
		for {
			if event, err := c.WaitForEvent(); event == nil && err == nil {
				return // the connection ended
			}
		}
	}()
	x := &xConn{c: c, root: xproto.Setup(c).DefaultScreen(c).Root}
	// As seldom as can be, once a connection: it writes maps of xgb for all of them,
	// which are read when something comes from the server unasked.
	x.saver = screensaver.Init(c)
	for name, atom := range map[string]*xproto.Atom{
		"_NET_ACTIVE_WINDOW": &x.active, "_NET_WM_STATE": &x.state, "_NET_WM_STATE_FULLSCREEN": &x.full,
	} {
		r, err := xproto.InternAtom(c, false, uint16(len(name)), name).Reply()
		if err != nil {
			c.Close()
			return nil, err
		}
		*atom = r.Atom
	}
	return x, nil
}

// get returns the connection.
func (x *xServer) get() (*xConn, error) {
	if x.conn == nil {
		if time.Now().Before(x.after) {
			return nil, x.err
		}
		if x.conn, x.err = x.open(); x.err != nil {
			x.conn, x.after = nil, time.Now().Add(reconnect)
			return nil, x.err
		}
	}
	return x.conn, nil
}

func (x *xServer) close() {
	if x.conn != nil {
		x.conn.c.Close()
		x.conn = nil
	}
}

// idle is since when there was no input.
func (x *xServer) idle() (time.Duration, error) {
	conn, err := x.get()
	if err != nil {
		return 0, err
	}
	if conn.saver != nil {
		return 0, conn.saver
	}
	r, err := screensaver.QueryInfo(conn.c, xproto.Drawable(conn.root)).Reply()
	if err != nil {
		x.close()
		return 0, err
	}
	return time.Duration(r.MsSinceUserInput) * time.Millisecond, nil
}

// fullscreen reports whether the active window fills the screen.
func (x *xServer) fullscreen() (bool, error) {
	conn, err := x.get()
	if err != nil {
		return false, err
	}
	active, err := conn.property(conn.root, conn.active, xproto.AtomWindow, 1)
	if err != nil {
		x.close()
		return false, err
	}
	if len(active) == 0 {
		return false, errors.New("no window manager says which window is active")
	}
	if active[0] == 0 {
		return false, nil
	}
	// The window may be gone by now.
	states, err := conn.property(xproto.Window(active[0]), conn.state, xproto.AtomAtom, 64)
	if err != nil {
		return false, nil //nolint:nilerr // then it fills nothing
	}
	for _, s := range states {
		if xproto.Atom(s) == conn.full {
			return true, nil
		}
	}
	return false, nil
}

// property returns the 32-bit values of a property.
func (x *xConn) property(w xproto.Window, name, kind xproto.Atom, most uint32) ([]uint32, error) {
	r, err := xproto.GetProperty(x.c, false, w, name, kind, 0, most).Reply()
	if err != nil || r.Format != 32 {
		return nil, err
	}
	values := make([]uint32, 0, r.ValueLen)
	for i := 0; i+4 <= len(r.Value); i += 4 {
		values = append(values, xgb.Get32(r.Value[i:]))
	}
	return values, nil
}
