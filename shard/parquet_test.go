package shard

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/parquet-go/parquet-go/format"
)

type (
	pqAlpaca struct {
		ID          int64    `parquet:"id"`
		Instruction string   `parquet:"instruction,dict"`
		Input       *string  `parquet:"input,optional"`
		Output      string   `parquet:"output"`
		Scores      []int32  `parquet:"scores,list"`
		Labels      []string `parquet:"labels"`
	}
	pqMessage struct {
		Role    string  `parquet:"role,dict"`
		Content *string `parquet:"content,optional"`
		Calls   []struct {
			Name string `parquet:"name"`
		} `parquet:"tool_calls,list"`
	}
	pqMessages struct {
		Messages []pqMessage `parquet:"messages,list,optional"`
	}
	pqTurn struct {
		From  string `parquet:"from"`
		Value string `parquet:"value,plain"`
	}
	pqShareGPT struct {
		System        *string  `parquet:"system,optional"`
		Conversations []pqTurn `parquet:"conversations"`
	}
	pqCompletion struct {
		Prompt     string `parquet:"prompt"`
		Completion string `parquet:"completion"`
	}
	pqText struct {
		Text *string `parquet:"text,optional,dict"`
	}
)

func parquetBytes[T any](t testing.TB, rows []T, options ...parquet.WriterOption) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b, options...)
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func parquetRows(b []byte) (rows []string, err error) {
	src := parquetSource{name: "x.parquet", f: bytes.NewReader(b), size: int64(len(b)), columns: fieldNames}
	err = scanParquet(context.Background(), src, func(r rawRow) error {
		rows = append(rows, string(r.raw))
		return nil
	})
	return rows, err
}

func ptr[T any](v T) *T { return &v }

func TestParquetFormats(t *testing.T) {
	turn := func(role, text string) pqMessage { return pqMessage{Role: role, Content: &text} }
	for name, tt := range map[string]struct {
		file     []byte
		detected Detected
		rows     []Row
		warning  string
	}{
		"alpaca": {
			parquetBytes(t, []pqAlpaca{
				{1, "Say hi", nil, "Hi é", []int32{1, 2}, nil},
				{2, "Add", ptr("1 2"), "3", nil, []string{"a", "b"}},
			}),
			Detected{"alpaca", "alpaca", "its first row has instruction and output"},
			[]Row{{Instruction: "Say hi", Output: "Hi é"}, {Instruction: "Add", Input: "1 2", Output: "3"}},
			`fields other than instruction, input and output were left out: "id", "labels", "scores"`,
		},
		"messages": {
			parquetBytes(t, []pqMessages{
				{[]pqMessage{turn("system", "s"), turn("user", "q\n"), turn("assistant", "a")}},
				{[]pqMessage{turn("user", ""), turn("assistant", "b")}},
			}),
			Detected{"messages", "messages", "its first row has messages"},
			[]Row{
				{Messages: []Message{{"system", "s"}, {"user", "q\n"}, {"assistant", "a"}}},
				{Messages: []Message{{"user", ""}, {"assistant", "b"}}},
			},
			"",
		},
		"ShareGPT": {
			parquetBytes(t, []pqShareGPT{
				{ptr("s"), []pqTurn{{"human", "q"}, {"gpt", "a"}}},
				{nil, []pqTurn{{"human", "r"}, {"gpt", "b"}}},
			}),
			Detected{"sharegpt", "messages", "its first row has conversations"},
			[]Row{
				{Messages: []Message{{"system", "s"}, {"user", "q"}, {"assistant", "a"}}},
				{Messages: []Message{{"user", "r"}, {"assistant", "b"}}},
			},
			"",
		},
		"completion": {
			parquetBytes(t, []pqCompletion{{"p", "c"}}),
			Detected{"completion", "completion", "its first row has prompt and completion"},
			[]Row{{Instruction: "p", Output: "c"}},
			"",
		},
		"text": {
			parquetBytes(t, []pqText{{ptr("one")}, {ptr("two")}, {ptr("three")}}),
			Detected{"text", "text", "its first row has text"},
			[]Row{{Output: "one"}, {Output: "two"}, {Output: "three"}},
			"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			imp := mustImportDataset(t, s, DatasetOptions{Files: []string{writeRows(t, "a.parquet", string(tt.file))}})
			if imp.Detected != tt.detected {
				t.Errorf("detected %+v, want %+v", imp.Detected, tt.detected)
			}
			rows, _ := all(t, s, imp)
			if diff := cmp.Diff(tt.rows, rows); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
			if got := strings.Join(imp.Warnings, ";"); got != tt.warning {
				t.Errorf("warnings %q, want %q", got, tt.warning)
			}
		})
	}
}

// TestParquetWriting checks that rows do not depend on how a file is written:
// pages of both versions, all compressions, and rows that span pages.
func TestParquetWriting(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var rows []pqMessages
	var want []string
	for range 500 {
		var m []pqMessage
		var line []string
		for i := range rng.IntN(9) {
			role, text := []string{"user", "assistant"}[i%2], strings.Repeat("x", rng.IntN(60))
			v := pqMessage{Role: role}
			content := "null"
			if rng.IntN(5) > 0 {
				v.Content, content = &text, `"`+text+`"`
			}
			calls := ""
			for range rng.IntN(3) {
				v.Calls = append(v.Calls, struct {
					Name string `parquet:"name"`
				}{role})
				calls += `,{"name":"` + role + `"}`
			}
			m = append(m, v)
			line = append(line, fmt.Sprintf(`{"role":"%s","content":%s,"tool_calls":[%s]}`, role, content, strings.TrimPrefix(calls, ",")))
		}
		rows = append(rows, pqMessages{m})
		if m == nil {
			want = append(want, `{"messages":null}`)
			continue
		}
		want = append(want, `{"messages":[`+strings.Join(line, ",")+`]}`)
	}
	for _, codec := range []parquet.WriterOption{
		parquet.Compression(&parquet.Uncompressed), parquet.Compression(&parquet.Snappy),
		parquet.Compression(&parquet.Gzip), parquet.Compression(&parquet.Zstd),
		parquet.Compression(&parquet.Brotli), parquet.Compression(&parquet.Lz4Raw),
	} {
		for version := 1; version <= 2; version++ {
			b := parquetBytes(t, rows, codec, parquet.DataPageVersion(version), parquet.PageBufferSize(300), parquet.MaxRowsPerRowGroup(190))
			got, err := parquetRows(b)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Fatalf("version %d: %v (-want +got):\n%s", version, err, diff)
			}
		}
	}
	if _, err := decompressPage(format.LZO, nil, 0); err == nil || !strings.Contains(err.Error(), "use zstd, snappy, gzip, brotli, lz4_raw or none") {
		t.Errorf("other compression: %v", err)
	}
}

// TestParquetEncodings: texts in every encoding that there is for them.
func TestParquetEncodings(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	type row struct{ Text, Prompt string }
	var rows []row
	var want []string
	for i := range 700 {
		r := row{Text: strings.Repeat("ab", rng.IntN(40)) + fmt.Sprint(rng.IntN(3)), Prompt: fmt.Sprintf("a/long/common/path/%06d", i)}
		rows = append(rows, r)
		want = append(want, fmt.Sprintf(`{"prompt":%q,"text":%q}`, r.Prompt, r.Text))
	}
	for _, e := range []encoding.Encoding{&parquet.Plain, &parquet.RLEDictionary, &parquet.DeltaLengthByteArray, &parquet.DeltaByteArray} {
		text := func() parquet.Node { return parquet.Encoded(parquet.String(), e) }
		schema := parquet.NewSchema("rows", parquet.Group{"text": text(), "prompt": text()})
		for version := 1; version <= 2; version++ {
			var b bytes.Buffer
			w := parquet.NewGenericWriter[map[string]string](&b, schema, parquet.DataPageVersion(version), parquet.PageBufferSize(900))
			for _, r := range rows {
				if _, err := w.Write([]map[string]string{{"text": r.Text, "prompt": r.Prompt}}); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			got, err := parquetRows(b.Bytes())
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Fatalf("%v, version %d: %v (-want +got):\n%s", e, version, err, diff)
			}
		}
	}
}

// TestParquetOfDuckDB: files by another writer; scripts/golden/parquet.mjs has
// made them.
func TestParquetOfDuckDB(t *testing.T) {
	paths, err := filepath.Glob("testdata/parquet/*.parquet")
	if err != nil || len(paths) < 8 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		table, _, _ := strings.Cut(filepath.Base(path), "-")
		t.Run(filepath.Base(path), func(t *testing.T) {
			i := 0
			d, err := ReadInput(t.Context(), path, InputOptions{}, func(r InputRow) error {
				var want Row
				switch table {
				case "alpaca":
					want = Row{Instruction: fmt.Sprintf("Question %d", i%7), Output: fmt.Sprintf("Answer %d – ünïcode ✓", i)}
					if i%4 != 0 {
						want.Input = fmt.Sprintf("input %d", i%5)
					}
				case "messages":
					want.Messages = []Message{{Role: "system", Content: fmt.Sprintf("Be brief %d", i%3)}}
					fallthrough
				case "conversations":
					want.Messages = append(want.Messages, Message{Role: "user", Content: fmt.Sprintf("Q %d", i)}, Message{Role: "assistant", Content: fmt.Sprintf("A %d", i*i)})
				case "text":
					want.Output = strings.Repeat(fmt.Sprintf("%x", md5.Sum([]byte(fmt.Sprint(i)))), 2)
				}
				i++
				if diff := cmp.Diff(want, r.Row); r.Err != nil || diff != "" {
					return fmt.Errorf("row %d: %w (-want +got):\n%s", i, r.Err, diff)
				}
				return nil
			})
			if err != nil || i != 300 {
				t.Errorf("%d rows, %+v, %v", i, d, err)
			}
		})
	}
}

func TestBadParquet(t *testing.T) {
	type number struct {
		Text int64 `parquet:"text"`
	}
	type other struct {
		Question string `parquet:"question"`
	}
	good := parquetBytes(t, []pqText{{ptr("one")}})
	long := append([]byte("PAR1\x15"), binary.LittleEndian.AppendUint32(nil, 0xfffffff0)...)
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"null", parquetBytes(t, []pqText{{ptr("one")}, {nil}}), "a.parquet: row 2: text is not a string"},
		{"number", parquetBytes(t, []number{{7}}), "a.parquet: row 1: text is not a string"},
		{"not UTF-8", parquetBytes(t, []pqText{{ptr("\xff")}}), "a.parquet: row 1: text is not UTF-8"},
		{"large", parquetBytes(t, []pqText{{ptr(strings.Repeat("x", MaxRowBytes))}}), "a.parquet: row 1: too large"},
		{"huge", parquetBytes(t, []pqText{{ptr(strings.Repeat("x", maxRawRowBytes+1))}}), "a.parquet: row 1: text: too large: more than"},
		{"unknown", parquetBytes(t, []other{{"q"}}), `a.parquet: row 1: cannot tell the format: invalid: its fields are "question"`},
		{"no rows", parquetBytes(t, []pqText{}), "no rows"},
		{"role", parquetBytes(t, []pqMessages{{[]pqMessage{{Role: "bot", Content: ptr("x")}}}}), `a.parquet: row 1: messages[0]: role is "bot"`},
		{"not Parquet", []byte("PAR1 but nothing else"), "a.parquet: invalid: does not end like a Parquet file"},
		{"encrypted", append(good[:len(good)-4:len(good)-4], "PARE"...), "a.parquet: invalid: encrypted Parquet is not read"},
		{"footer", append(long, "PAR1"...), "a.parquet: invalid: footer of 4294967280 bytes in a file of"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := testStore(t).ImportDataset(t.Context(), DatasetOptions{Files: []string{writeRows(t, "a.parquet", string(tt.file))}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestBadParquetPages: what no writer at hand makes.
func TestBadParquetPages(t *testing.T) {
	var held int64
	pages := func() *parquetPages { return &parquetPages{field: &parquetField{text: true}, held: &held} }
	if err := pages().values(nil, format.ByteStreamSplit, 0); err == nil || !strings.Contains(err.Error(), "is not read; write the file with plain or dictionary encoding") {
		t.Errorf("another encoding: %v", err)
	}
	// One block of 128 values in 4 parts; two values, a first one and one difference of 0 bits: 5, 5 and 1, 1.
	prefixes, suffixes := []byte{0x80, 1, 4, 2, 10, 0, 0, 0, 0, 0}, []byte{0x80, 1, 4, 2, 2, 0, 0, 0, 0, 0}
	p := pages()
	if err := p.values(slices.Concat(prefixes, suffixes, []byte("ab")), format.DeltaByteArray, 2); err != nil {
		t.Fatal(err)
	}
	if s, err := p.text(); !errors.Is(err, ErrInvalid) {
		t.Errorf("a prefix of 5 bytes of nothing gave %q, %v", s, err)
	}
	negative := []byte{0x80, 1, 4, 1, 1}
	if err := pages().values(negative, format.DeltaLengthByteArray, 1); !errors.Is(err, ErrInvalid) {
		t.Errorf("a length of -1: %v", err)
	}
	if _, err := decompressPage(format.Lz4Raw, make([]byte, 100), 100<<20); err == nil {
		t.Error("100 bytes of LZ4 may stand for 100 MB")
	}
}

// TestParquetBomb checks that small files that stand for very much are refused
// before the memory is asked for.
func TestParquetBomb(t *testing.T) {
	const claimed = "\xf5\xff\xff\xff\x07" // a varint of 2^31-11
	var bombs [][]byte
	add := func(footer string) {
		b := append([]byte("PAR1"), footer...)
		bombs = append(bombs, append(binary.LittleEndian.AppendUint32(b, uint32(len(footer))), "PAR1"...))
	}
	add("\x29\xfc" + claimed)                                   // field 2: a list of that many structs
	add("\x18" + claimed)                                       // a string that long
	add("\x49\xfc\xff\xff\x3f" + strings.Repeat("\x00", 1<<20)) // row groups of nothing
	add(strings.Repeat("\x1c", 1<<20))                          // structs in each other
	text := parquetBytes(t, []pqText{{ptr(strings.Repeat("x", 3<<20))}}, parquet.Compression(&parquet.Zstd))
	for i, b := range bombs {
		if rows, err := parquetRows(b); err == nil {
			t.Errorf("bomb %d: %d rows", i, len(rows))
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, b := range bombs {
		_, _ = parquetRows(b)
	}
	if _, err := parquetRows(text); err != nil {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 256<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
	held := int64(0)
	p := parquetPages{held: &held}
	if err := p.hold(maxParquetHeld + 1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("hold: %v", err)
	}
	b, err := decompressPage(6, zstdOf(t, make([]byte, 64<<20)), 1000)
	if err == nil {
		t.Errorf("%d bytes where 1000 were said", len(b))
	}
}

func zstdOf(t *testing.T, b []byte) []byte {
	out, err := parquet.Zstd.Encode(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// seeds are files with all that the reader knows.
func parquetSeeds(t testing.TB) [][]byte {
	turns := []pqShareGPT{{ptr("s"), []pqTurn{{"human", "q"}, {"gpt", "a"}}}, {nil, []pqTurn{{"gpt", "b"}}}}
	messages := []pqMessages{{[]pqMessage{{Role: "user", Content: ptr("q")}, {Role: "assistant", Content: ptr("a")}}}, {}}
	return [][]byte{
		parquetBytes(t, turns, parquet.Compression(&parquet.Snappy)),
		parquetBytes(t, messages, parquet.DataPageVersion(1)),
		parquetBytes(t, messages, parquet.Compression(&parquet.Gzip)),
		parquetBytes(t, []pqAlpaca{{1, "i", nil, "o", nil, nil}, {2, "i", ptr("n"), "p", nil, nil}}, parquet.Compression(&parquet.Zstd)),
	}
}

// TestParquetMutations cuts files at every length and changes every byte: the
// reader ends with rows or an error, never in a panic.
func TestParquetMutations(t *testing.T) {
	for _, seed := range parquetSeeds(t) {
		for n := range seed {
			if _, err := parquetRows(seed[:n]); err == nil {
				t.Fatalf("read %d of %d bytes without an error", n, len(seed))
			}
		}
		for i := range seed {
			for _, flip := range []byte{0x01, 0x80, 0xff} {
				b := bytes.Clone(seed)
				b[i] ^= flip
				_, _ = parquetRows(b)
			}
		}
	}
}

// Whatever the file, what comes out is JSON that is within the bounds.
func FuzzParquet(f *testing.F) {
	for _, seed := range parquetSeeds(f) {
		f.Add(seed)
	}
	paths, err := filepath.Glob("testdata/parquet/*.parquet")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		src := parquetSource{name: "x", f: bytes.NewReader(b), size: int64(len(b)), columns: fieldNames}
		err := scanParquet(t.Context(), src, func(r rawRow) error {
			if n++; n > 1000 {
				return errors.New("enough")
			}
			if len(r.raw) > 7*maxRawRowBytes { // an escape has six bytes
				t.Errorf("a row of %d bytes", len(r.raw))
			}
			if _, err := parseObject(r.raw); err != nil && !strings.Contains(err.Error(), "UTF-8") && !strings.Contains(err.Error(), "twice") {
				t.Errorf("%q: %v", r.raw, err)
			}
			return nil
		})
		if err == nil && n == 0 && len(b) == 0 {
			t.Error("nothing is a Parquet file")
		}
	})
}

// TestReadInputParquet checks the reader that "data check" uses.
func TestReadInputParquet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Rows.PARQUET")
	if err := os.WriteFile(path, parquetBytes(t, []pqCompletion{{"p", "c"}, {"p", " "}}), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	d, err := ReadInput(t.Context(), path, InputOptions{}, func(r InputRow) error {
		got = append(got, fmt.Sprintf("%s %q %v", r.Place, r.Row.Output, r.Err))
		return nil
	})
	want := []string{`Rows.PARQUET: row 1 "c" <nil>`, `Rows.PARQUET: row 2 " " completion is empty`}
	if err != nil || d.Input != FormatCompletion || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v: %q, want %q", d, err, got, want)
	}
}
