package checkpoint

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moot-net/moot/shard/safetensors"
)

// A small writer of the files of torch.save, from what is known of the format.

type testTensor struct {
	name           string
	kind           string // of storage
	key            string
	numel          int
	offset         int
	size, stride   []int
	parameter      bool
	function       string // instead of _rebuild_tensor_v2
	storageNotType string // instead of the storage's global
}

func number(n int) string {
	switch {
	case n >= 0 && n < 256:
		return "K" + string([]byte{byte(n)})
	case n >= 0 && n < 65536:
		return "M" + string(binary.LittleEndian.AppendUint16(nil, uint16(n)))
	}
	return "J" + string(binary.LittleEndian.AppendUint32(nil, uint32(n)))
}

func text(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func numbers(list []int) string {
	s := "("
	for _, n := range list {
		s += number(n)
	}
	return s + "t"
}

const orderedDict = "ccollections\nOrderedDict\n)R"

func (t testTensor) pickle(old bool) string {
	function, storage := t.function, t.storageNotType
	if function == "" {
		function = "torch._utils\n_rebuild_tensor_v2"
	}
	if storage == "" {
		storage = "ctorch\n" + t.kind + "\n"
	}
	id := "(" + text("storage") + storage + text(t.key) + text("cpu") + number(t.numel)
	if old {
		id += "N"
	}
	s := "c" + function + "\n((" + id[1:] + "tQ" + number(t.offset) + numbers(t.size) + numbers(t.stride) + "\x89" + orderedDict + "tR"
	if t.parameter {
		s = "ctorch._utils\n_rebuild_parameter\n(" + s + "\x88" + orderedDict + "tR"
	}
	return s
}

func dictOf(tensors []testTensor, old bool) string {
	s := "\x80\x02" + orderedDict + "q\x00("
	for _, t := range tensors {
		s += text(t.name) + t.pickle(old)
	}
	return s + "u}" + text("_metadata") + orderedDict + "(" + text("") + "}" + text("version") + "K\x01su" + "sb."
}

type entry struct {
	name, data string
	method     uint16
}

func archive(entries ...entry) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, e := range entries {
		w, err := z.CreateHeader(&zip.FileHeader{Name: "archive/" + e.name, Method: e.method})
		if err == nil {
			_, err = io.WriteString(w, e.data)
		}
		if err != nil {
			panic(err)
		}
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func f32s(v ...float32) string { return string(floatBytes(v)) }

func count(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(i)
	}
	return v
}

// sample is two storages and five views of them.
func sample() (tensors []testTensor, storages map[string]string) {
	half := ""
	for _, x := range []float32{1, -2, 0.5, 8} {
		half += string(binary.LittleEndian.AppendUint16(nil, safetensors.Float32ToF16(x)))
	}
	return []testTensor{
		{name: "layers.10.w", kind: "FloatStorage", key: "0", numel: 12, size: []int{3, 4}, stride: []int{4, 1}},
		{name: "layers.9.t", kind: "FloatStorage", key: "0", numel: 12, size: []int{4, 3}, stride: []int{1, 4}, parameter: true},
		{name: "part", kind: "FloatStorage", key: "0", numel: 12, offset: 5, size: []int{2, 2}, stride: []int{4, 2}},
		{name: "one", kind: "FloatStorage", key: "0", numel: 12, offset: 11, size: []int{}, stride: []int{}},
		{name: "half", kind: "HalfStorage", key: "1", numel: 4, size: []int{4}, stride: []int{1}},
	}, map[string]string{"0": f32s(count(12)...), "1": half}
}

func zipFile(tensors []testTensor, storages map[string]string) []byte {
	entries := []entry{{name: "data.pkl", data: dictOf(tensors, false)}, {name: "byteorder", data: "little"}}
	for _, key := range []string{"0", "1"} {
		if s, ok := storages[key]; ok {
			entries = append(entries, entry{name: "data/" + key, data: s})
		}
	}
	return archive(append(entries, entry{name: "version", data: "3\n"})...)
}

func oldFile(tensors []testTensor, storages map[string]string) []byte {
	b := append([]byte{}, oldMagic...)
	b = append(b, "\x80\x02M\xe9\x03."...)
	b = append(b, "\x80\x02}("+text("protocol_version")+"M\xe9\x03"+text("little_endian")+"\x88u."...)
	b = append(b, dictOf(tensors, true)...)
	b = append(b, "\x80\x02]("+text("0")+text("1")+"e."...)
	for i, width := range []int{4, 2} {
		s := storages[fmt.Sprint(i)]
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s)/width))
		b = append(b, s...)
	}
	return b
}

func write(t testing.TB, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTorch(t *testing.T) {
	for name, make := range map[string]func([]testTensor, map[string]string) []byte{"zip": zipFile, "old": oldFile} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, torchFile), make(sample()))
			f, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var names []string
			for _, info := range f.Tensors() {
				names = append(names, info.String())
			}
			if got, want := strings.Join(names, " "), "half F16[4] layers.9.t F32[4 3] layers.10.w F32[3 4] one F32[] part F32[2 2]"; got != want {
				t.Errorf("tensors %s, want %s", got, want)
			}
			for name, want := range map[string][]float32{
				"layers.10.w": count(12),
				"layers.9.t":  {0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11},
				"part":        {5, 7, 9, 11}, "one": {11}, "half": {1, -2, 0.5, 8},
			} {
				got := append([]float32{}, want...)
				clear(got)
				if err := f.ReadFloat32(name, got); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s is %v, want %v (%v)", name, got, want, err)
				}
			}
			if err := f.ReadFloat32("one", make32(2)); err == nil {
				t.Error("read into too many values")
			}
		})
	}
}

func make32(n int) []float32 { return make([]float32, n) }

func TestTorchRefuses(t *testing.T) {
	edit := func(fn func(t *testTensor)) []byte {
		tensors, storages := sample()
		fn(&tensors[0])
		return zipFile(tensors, storages)
	}
	raw := func(pickle string) []byte {
		_, s := sample()
		return archive(entry{name: "data.pkl", data: pickle}, entry{name: "data/0", data: s["0"]})
	}
	_, storages := sample()
	w := testTensor{name: "w", kind: "FloatStorage", key: "0", numel: 12, size: []int{12}, stride: []int{1}}
	for name, tt := range map[string]struct {
		file []byte
		want string
	}{
		"system":         {raw("\x80\x02cposix\nsystem\n" + text("id") + "\x85R."), "may be made to run a program"},
		"builtins":       {raw("\x80\x02cbuiltins\neval\n(" + text("1") + "tR."), "builtins eval"},
		"stack global":   {raw("\x80\x04\x8c\x02os\x8c\x06system\x93."), "os system"},
		"inst":           {raw("(i__main__\nX\n."), "instruction 'i'"},
		"object":         {raw("\x80\x02\x81."), "instruction"},
		"extension":      {raw("\x80\x02\x82\x01."), "instruction"},
		"attributes":     {raw("\x80\x02]}b."), "attributes"},
		"no dictionary":  {raw("\x80\x02]."), "not a dictionary"},
		"a number":       {raw("\x80\x02}" + text("epoch") + "K\x01s."), `"epoch" is no tensor`},
		"nested":         {raw("\x80\x02}" + text("state_dict") + "}s."), "no tensor"},
		"nameless":       {raw("\x80\x02}K\x01K\x01s."), "without a name"},
		"twice":          {raw("\x80\x02}(" + text("w") + w.pickle(false) + text("w") + w.pickle(false) + "u."), "twice"},
		"calls a tensor": {raw("\x80\x02" + w.pickle(false) + ")R."), "cannot be called"},
		"unfinished":     {raw("\x80\x02}"), "too early"},
		"two values":     {raw("\x80\x02}}."), "2 values"},
		"mark left":      {raw("\x80\x02(."), "mark"},
		"more":           {raw("\x80\x02}.}"), "after the pickle"},
		"protocol":       {raw("\x80\x09}."), "protocol 9"},
		"memo":           {raw("\x80\x02h\x07."), "before it is stored"},
		"long string":    {raw("\x80\x02X\xff\xff\xff\xff"), "too early"},
		"pop too much":   {raw("\x80\x02s."), "missing"},
		"odd items":      {raw("\x80\x02}(Nu."), "cannot hold"},
		"compressed": {archive(entry{name: "data.pkl", data: dictOf([]testTensor{w}, false)},
			entry{name: "data/0", data: storages["0"], method: zip.Deflate}), "not stored plainly"},
		"another method": {func() []byte {
			b := zipFile(sample())
			at := bytes.LastIndex(b, []byte("archive/data/0")) - 46 // its entry in the directory
			b[at+10] = byte(zip.Deflate)
			return b
		}(), "not stored plainly"},
		"big endian": {archive(entry{name: "data.pkl", data: dictOf(nil, false)}, entry{name: "byteorder", data: "big"}), "byte order"},
		"no storage": {archive(entry{name: "data.pkl", data: dictOf([]testTensor{w}, false)}), "data/0 is missing"},
		"short storage": {archive(entry{name: "data.pkl", data: dictOf([]testTensor{w}, false)},
			entry{name: "data/0", data: storages["0"][4:]}), "has 44 bytes"},
		"no pickle":     {archive(entry{name: "x", data: ""}), "data.pkl is missing"},
		"no archive":    {[]byte("hello, this is text"), "neither a zip"},
		"empty":         {nil, "neither a zip"},
		"too far":       {edit(func(t *testTensor) { t.size = []int{4, 4} }), "reaches element 15"},
		"offset":        {edit(func(t *testTensor) { t.offset = 1 }), "reaches element 12"},
		"offset beyond": {edit(func(t *testTensor) { t.offset = 13 }), "offset"},
		"negative":      {edit(func(t *testTensor) { t.stride = []int{-4, 1} }), "strides"},
		"dimensions":    {edit(func(t *testTensor) { t.stride = []int{1} }), "strides"},
		"overflow": {edit(func(t *testTensor) {
			t.size, t.stride = []int{1 << 30, 1 << 30, 1 << 30}, []int{1 << 30, 1 << 30, 1 << 30}
		}), "of size"},
		"expanded":      {edit(func(t *testTensor) { t.size, t.stride = []int{1 << 20, 1}, []int{0, 1} }), "4 times"},
		"unknown type":  {edit(func(t *testTensor) { t.kind = "QInt8Storage" }), "QInt8Storage"},
		"no type":       {edit(func(t *testTensor) { t.storageNotType = "N" }), "without a type"},
		"other type":    {edit(func(t *testTensor) { t.kind = "DoubleStorage" }), "12 elements of F64"},
		"other rebuild": {edit(func(t *testTensor) { t.function = "torch._utils\n_rebuild_sparse_tensor" }), "_rebuild_sparse_tensor"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "x.bin"), tt.file)
			f, err := OpenTorch(path)
			if err == nil {
				f.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) {
				t.Errorf("err = %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestOldTorchRefuses(t *testing.T) {
	good := oldFile(sample())
	for name, tt := range map[string]struct {
		file []byte
		want string
	}{
		"truncated":   {good[:len(good)-1], "length"},
		"longer":      {append(bytes.Clone(good), 0), "do not agree"},
		"big endian":  {bytes.Replace(good, []byte("little_endian\x88"), []byte("little_endian\x89"), 1), "little endian"},
		"version":     {bytes.Replace(good, []byte("\x80\x02M\xe9\x03."), []byte("\x80\x02M\xe8\x03."), 1), "version 1000"},
		"other key":   {bytes.Replace(good, []byte("]("+text("0")), []byte("]("+text("7")), 1), "belongs to no tensor"},
		"only a head": {oldMagic, "too early"},
	} {
		if _, err := OpenTorch(write(t, filepath.Join(t.TempDir(), "x.bin"), tt.file)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: err = %v, want one with %q", name, err, tt.want)
		}
	}
}

func TestNatural(t *testing.T) {
	list := []string{"a", "a.b", "b.2.x", "b.10.a", "b.010", "b.10", "c1", "c01"}
	for i, a := range list {
		for j, b := range list {
			if x, y := natural(a, b), natural(b, a); (x < 0) != (y > 0) || (x == 0) != (i == j) {
				t.Errorf("natural(%q, %q) = %d, the other way %d", a, b, x, y)
			}
		}
	}
	if natural("b.2.x", "b.10.a") >= 0 {
		t.Error("block 10 is before block 2")
	}
}

func FuzzTorch(f *testing.F) {
	f.Add(zipFile(sample()))
	f.Add(oldFile(sample()))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := write(t, filepath.Join(t.TempDir(), "x.bin"), b)
		file, err := OpenTorch(path)
		if err != nil {
			return
		}
		defer file.Close()
		total := int64(0)
		for _, info := range file.Tensors() {
			r, err := file.Data(info.Name)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, r)
			if err != nil || n != info.Bytes() {
				t.Fatalf("%s has %d bytes (%v)", info, n, err)
			}
			total += n
		}
		if total > maxReuse*int64(len(b)) {
			t.Fatalf("%d bytes of %d", total, len(b))
		}
	})
}

// FuzzPickle tries pickles without the archive around them.
func FuzzPickle(f *testing.F) {
	tensors, _ := sample()
	f.Add([]byte(dictOf(tensors, false)))
	f.Add([]byte(dictOf(tensors, true)))
	f.Add([]byte("\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01aG\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x01b\x8a\x02\xff\xff\x85\x86\x87u."))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, n, err := unpickle(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if n > len(b) {
			t.Fatalf("a pickle of %d bytes in %d", n, len(b))
		}
		file := &TorchFile{tensors: map[string]*torchTensor{}}
		if file.take(v) != nil {
			return
		}
		for _, x := range file.tensors {
			if x.elements() > 0 && (x.span() < x.dtype.Size() || x.offset*x.dtype.Size()+x.span() > x.numel*x.dtype.Size() || x.numel > math.MaxInt64/8) {
				t.Fatalf("a view outside of its storage: %+v", x)
			}
		}
	})
}
