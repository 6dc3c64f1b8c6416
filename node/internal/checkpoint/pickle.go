package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrFormat is wrapped by errors about files that break their format.
var ErrFormat = errors.New("invalid checkpoint")

// ErrUnsupported is wrapped by errors about checkpoints of a kind that is not
// read here.
var ErrUnsupported = errors.New("unsupported checkpoint")

// The instructions of pickle that occur in files of tensors.
const (
	opMark            = '('
	opStop            = '.'
	opFloat           = 'G'
	opInt             = 'J'
	opInt1            = 'K'
	opInt2            = 'M'
	opNone            = 'N'
	opPersID          = 'Q'
	opReduce          = 'R'
	opUnicode         = 'X'
	opAppend          = 'a'
	opBuild           = 'b'
	opGlobal          = 'c'
	opAppends         = 'e'
	opGet             = 'h'
	opLongGet         = 'j'
	opPut             = 'q'
	opLongPut         = 'r'
	opSetItem         = 's'
	opTuple           = 't'
	opSetItems        = 'u'
	opEmptyList       = ']'
	opEmptyDict       = '}'
	opEmptyTuple      = ')'
	opProto           = 0x80
	opTuple1          = 0x85
	opTuple2          = 0x86
	opTuple3          = 0x87
	opTrue            = 0x88
	opFalse           = 0x89
	opLong1           = 0x8a
	opShortUnicode    = 0x8c
	opStackGlobal     = 0x93
	opMemoize         = 0x94
	opFrame           = 0x95
	maxPickleProtocol = 5
)

// What a pickle may be made of, beside nil, bool, int64, float64 and string.
type (
	mark   struct{}
	tuple  []any
	list   struct{ items []any }
	global string // "module name", one of those below
	dict   struct {
		keys   []any
		values []any
	}
)

const (
	globalOrderedDict = global("collections OrderedDict")
	globalTensorV1    = global("torch._utils _rebuild_tensor")
	globalTensorV2    = global("torch._utils _rebuild_tensor_v2")
	globalParameter   = global("torch._utils _rebuild_parameter")
)

func (g global) known() bool {
	switch g {
	case globalOrderedDict, globalTensorV1, globalTensorV2, globalParameter:
		return true
	}
	return storageTypes[g] != ""
}

// machine reads one pickle. Every instruction adds at most one value, so that
// memory is bounded by the length of the input; values are shared, never
// copied, and nothing recurses.
type machine struct {
	in    []byte
	at    int
	stack []any
	memo  map[uint32]any
}

// unpickle reads a pickle at the start of b, and returns its value and length.
func unpickle(b []byte) (any, int, error) {
	m := &machine{in: b, memo: map[uint32]any{}}
	for {
		done, err := m.step()
		if err != nil {
			return nil, 0, fmt.Errorf("%w: pickle at byte %d: %w", ErrFormat, m.at, err)
		}
		if done {
			return m.stack[0], m.at, nil
		}
	}
}

func (m *machine) take(n int) ([]byte, error) {
	if n < 0 || n > len(m.in)-m.at {
		return nil, errors.New("it ends too early")
	}
	b := m.in[m.at : m.at+n]
	m.at += n
	return b, nil
}

// number reads an unsigned little-endian number of n bytes.
func (m *machine) number(n int) (uint64, error) {
	b, err := m.take(n)
	if err != nil {
		return 0, err
	}
	var full [8]byte
	copy(full[:], b)
	return binary.LittleEndian.Uint64(full[:]), nil
}

func (m *machine) push(v any) { m.stack = append(m.stack, v) }

// pop takes the topmost n values, none of which is a mark.
func (m *machine) pop(n int) ([]any, error) {
	if len(m.stack) < n {
		return nil, errors.New("a value is missing")
	}
	v := m.stack[len(m.stack)-n:]
	for _, x := range v {
		if _, ok := x.(mark); ok {
			return nil, errors.New("a mark where a value should be")
		}
	}
	m.stack = m.stack[:len(m.stack)-n]
	return v, nil
}

// popMark takes what is above the topmost mark, and the mark.
func (m *machine) popMark() ([]any, error) {
	for i := len(m.stack) - 1; i >= 0; i-- {
		if _, ok := m.stack[i].(mark); ok {
			v := m.stack[i+1:]
			m.stack = m.stack[:i]
			return v, nil
		}
	}
	return nil, errors.New("a mark is missing")
}

// step does one instruction; done says that it was the last one.
func (m *machine) step() (done bool, err error) {
	code, err := m.take(1)
	if err != nil {
		return false, err
	}
	switch op := code[0]; op {
	case opProto:
		v, err := m.number(1)
		if err == nil && v > maxPickleProtocol {
			err = fmt.Errorf("protocol %d is unknown", v)
		}
		return false, err
	case opFrame:
		_, err = m.take(8)
		return false, err
	case opStop:
		if len(m.stack) != 1 {
			return false, fmt.Errorf("it ends with %d values, want 1", len(m.stack))
		}
		if _, ok := m.stack[0].(mark); ok {
			return false, errors.New("it ends with a mark")
		}
		return true, nil
	case opMark:
		m.push(mark{})
	case opNone:
		m.push(nil)
	case opTrue, opFalse:
		m.push(op == opTrue)
	case opEmptyTuple:
		m.push(tuple{})
	case opEmptyList:
		m.push(&list{})
	case opEmptyDict:
		m.push(&dict{})
	case opInt, opInt1, opInt2, opLong1, opFloat:
		return false, m.pushNumber(op)
	case opUnicode, opShortUnicode:
		return false, m.pushString(op)
	case opTuple, opTuple1, opTuple2, opTuple3:
		return false, m.pushTuple(op)
	case opGet, opLongGet, opPut, opLongPut, opMemoize:
		return false, m.useMemo(op)
	case opAppend, opAppends, opSetItem, opSetItems:
		return false, m.fill(op)
	case opGlobal, opStackGlobal:
		return false, m.pushGlobal(op)
	case opPersID:
		return false, m.pushStorage()
	case opReduce:
		return false, m.reduce()
	case opBuild: // attributes of an ordered dictionary, which do not matter here
		v, err := m.pop(2)
		if err != nil {
			return false, err
		}
		if d, ok := v[0].(*dict); ok {
			if _, ok := v[1].(*dict); ok {
				m.push(d)
				return false, nil
			}
		}
		return false, errors.New("an object with attributes: a checkpoint has tensors only")
	default:
		return false, fmt.Errorf("instruction %q is not one that describes tensors", op)
	}
	return false, nil
}

func (m *machine) pushNumber(op byte) error {
	width := map[byte]int{opInt: 4, opInt1: 1, opInt2: 2, opFloat: 8}[op]
	if op == opLong1 {
		n, err := m.number(1)
		if err != nil {
			return err
		}
		if n > 8 {
			return fmt.Errorf("a number of %d bytes", n)
		}
		width = int(n)
	}
	if op == opFloat {
		b, err := m.take(width)
		if err == nil {
			m.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
		}
		return err
	}
	v, err := m.number(width)
	if err != nil {
		return err
	}
	if signed := op == opInt || op == opLong1; signed && width > 0 {
		shift := 64 - 8*width
		m.push(int64(v<<shift) >> shift)
		return nil
	}
	m.push(int64(v))
	return nil
}

func (m *machine) pushString(op byte) error {
	width := 4
	if op == opShortUnicode {
		width = 1
	}
	n, err := m.number(width)
	if err != nil {
		return err
	}
	b, err := m.take(int(n))
	if err != nil {
		return err
	}
	m.push(string(b))
	return nil
}

func (m *machine) pushTuple(op byte) error {
	var v []any
	var err error
	if op == opTuple {
		v, err = m.popMark()
	} else {
		v, err = m.pop(int(op-opTuple1) + 1)
	}
	if err == nil {
		m.push(append(tuple{}, v...))
	}
	return err
}

func (m *machine) useMemo(op byte) error {
	var key uint64
	var err error
	switch op {
	case opGet, opPut:
		key, err = m.number(1)
	case opLongGet, opLongPut:
		key, err = m.number(4)
	case opMemoize:
		key = uint64(len(m.memo))
	}
	if err != nil {
		return err
	}
	if op == opGet || op == opLongGet {
		v, ok := m.memo[uint32(key)]
		if !ok {
			return fmt.Errorf("value %d is used before it is stored", key)
		}
		m.push(v)
		return nil
	}
	v, err := m.pop(1)
	if err == nil {
		m.memo[uint32(key)] = v[0]
		m.push(v[0])
	}
	return err
}

// fill adds to a list or dictionary.
func (m *machine) fill(op byte) error {
	var v []any
	var err error
	switch op {
	case opAppend:
		v, err = m.pop(1)
	case opSetItem:
		v, err = m.pop(2)
	default:
		v, err = m.popMark()
	}
	if err != nil {
		return err
	}
	if len(m.stack) == 0 {
		return errors.New("a value is missing")
	}
	switch to := m.stack[len(m.stack)-1].(type) {
	case *list:
		if op == opAppend || op == opAppends {
			to.items = append(to.items, v...)
			return nil
		}
	case *dict:
		if (op == opSetItem || op == opSetItems) && len(v)%2 == 0 {
			for i := 0; i < len(v); i += 2 {
				to.keys, to.values = append(to.keys, v[i]), append(to.values, v[i+1])
			}
			return nil
		}
	}
	return errors.New("items are added to what cannot hold them")
}

func (m *machine) pushGlobal(op byte) error {
	var g global
	if op == opStackGlobal {
		v, err := m.pop(2)
		if err != nil {
			return err
		}
		module, ok1 := v[0].(string)
		name, ok2 := v[1].(string)
		if !ok1 || !ok2 {
			return errors.New("a name that is no string")
		}
		g = global(module + " " + name)
	} else {
		var parts [2]string
		for i := range parts {
			n := bytes.IndexByte(m.in[m.at:], '\n')
			b, err := m.take(n)
			if err != nil {
				return err
			}
			parts[i] = string(b)
			m.at++
		}
		g = global(parts[0] + " " + parts[1])
	}
	if !g.known() {
		return fmt.Errorf("it asks for %.80q, which is no part of a tensor; the file may be made to run a program, and is not used", string(g))
	}
	m.push(g)
	return nil
}

func (m *machine) reduce() error {
	v, err := m.pop(2)
	if err != nil {
		return err
	}
	g, ok := v[0].(global)
	args, isTuple := v[1].(tuple)
	if !ok || !isTuple {
		return errors.New("a call of what cannot be called")
	}
	switch {
	case g == globalOrderedDict && len(args) == 0:
		m.push(&dict{})
		return nil
	case g == globalParameter && len(args) == 3:
		if t, ok := args[0].(*torchTensor); ok {
			m.push(t)
			return nil
		}
	case g == globalTensorV1 && len(args) == 4, g == globalTensorV2 && len(args) >= 6 && len(args) <= 7:
		t, err := rebuild(args)
		if err == nil {
			m.push(t)
		}
		return err
	}
	return fmt.Errorf("a call of %s with %d arguments", string(g), len(args))
}
