package tokenizer

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// pieces returns what an expression matches, and what is between in brackets.
func pieces(t testing.TB, source, s string) []string {
	t.Helper()
	e, err := compile(source)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	e.each(s, func(part string, matches bool) {
		if !matches {
			part = "[" + part + "]"
		}
		out = append(out, part)
	})
	return out
}

func TestExpression(t *testing.T) {
	for _, tt := range []struct {
		source, text string
		want         []string
	}{
		{`a|ab`, "abab", []string{"a", "[b]", "a", "[b]"}}, // the first, not the longest
		{`\s+(?!\S)|\s+`, "x   y ", []string{"[x]", "  ", " ", "[y]", " "}},
		{`a+?b|a`, "aab", []string{"aab"}},
		{`a++ab|c`, "aabc", []string{"[aab]", "c"}}, // nothing is given up
		{`(?>a+)b`, "aab", []string{"aab"}},
		{`(?i:'s|'RE)|x`, "'S're're x", []string{"'S", "'re", "'re", "[ ]", "x"}},
		{`(?i)ab(?-i)?`, "", nil},
		{`\p{N}{1,3}`, "12345", []string{"123", "45"}},
		{`[^\r\n\p{L}\p{N}]?\p{L}+`, "-é水\nx", []string{"-é水", "[\n]", "x"}},
		{` ?[^(\s|[.,!?…])]+`, "ab (cd).", []string{"ab", "[ (]", "cd", "[).]"}}, // a set in a set adds to it
		{`[\u4e00-\u9fa5]+`, "a水火b", []string{"[a]", "水火", "[b]"}},
		{`[一-龥]+|\x41`, "A水", []string{"A", "水"}},
		{`\p{Han}+|\P{Han}`, "水水a", []string{"水水", "a"}},
		{`\s+$`, "a \nb  ", []string{"[a]", " ", "[\nb]", "  "}}, // $ is the end of any line
		{`^a`, "aa\na", []string{"a", "[a\n]", "a"}},
		{`(?<=a)b|(?<!a)c`, "abcac", []string{"[a]", "b", "c", "[ac]"}},
		{`(ab){2,}|(?:ab)?c`, "abababcc", []string{"ababab", "c", "c"}},
		{`a{2}|a{,1}b`, "aaab", []string{"aa", "ab"}},
		{`x*`, "axx", []string{"[a]", "xx"}},
		{`[]a]+[\-x]`, "]a-", []string{"]a-"}},
		{`[a-]+`, "-a-b", []string{"-a-", "[b]"}},
		{`\.\(\[`, ".([", []string{".(["}},
		{`{`, "a{", []string{"[a]", "{"}},
	} {
		if tt.want == nil {
			continue
		}
		if got := pieces(t, tt.source, tt.text); !slices.Equal(got, tt.want) {
			t.Errorf("%s on %q: %q, want %q", tt.source, tt.text, got, tt.want)
		}
	}
	for _, source := range []string{
		`(`, `[`, `[a`, `a)`, `*`, `\`, `\q`, `\p{Nothing}`, `\p{`, `[b-a]`, `a{2,1}`, `(?<=ab)c`, `(?P<n>a)`, `\bx`, `[a&&b]`, `[[:alpha:]]`,
		`\x{110000}`, `a{9999}`, `((((a{999}){999}){999}){999})`, strings.Repeat("(", 500) + strings.Repeat(")", 500), `\1`,
	} {
		if _, err := compile(source); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v, want ErrUnsupported", source, err)
		}
	}
}

// TestExpressionScanners compares the scanners with the expressions that they
// stand for.
func TestExpressionScanners(t *testing.T) {
	text := "I'll don't X'S 'ſ  a1b22 3333  \r\n\n x\t\t.. ..\n é水½٣😀 \u00a0 \u0301a '' 'r 'v  "
	for _, source := range []string{gpt2Pattern, llama3Pattern, qwen2Pattern} {
		p, ok := patterns(source)
		if !ok {
			t.Fatalf("no scanner of %s", source)
		}
		for begin := range text {
			var got []string
			p.cut(text[begin:], first, func(s string) { got = append(got, s) })
			if want := pieces(t, source, text[begin:]); !slices.Equal(got, want) {
				t.Errorf("%s on %q: %q, want %q", source, text[begin:], got, want)
			}
		}
	}
}

// TestHostileExpression checks that no expression takes long.
func TestHostileExpression(t *testing.T) {
	text := strings.Repeat("a", 4000)
	for _, source := range []string{`(a+)+b`, `(a|a)*b`, `(a*)*b`, `a*a*a*a*a*b`, `(?:a?){500}a{500}b`, `(?=(a+)+b)x`, `(?:(?=a*)a)*b`, `()*b`} {
		begin := time.Now()
		e, err := compile(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		n := 0
		e.each(text, func(part string, _ bool) { n += len(part) })
		if n != len(text) {
			t.Errorf("%s: %d of %d bytes", source, n, len(text))
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%s: took %v", source, took)
		}
	}
}

func FuzzExpression(f *testing.F) {
	for _, s := range []string{gpt2Pattern, llama3Pattern, `(a+)+b`, `(?i:x)|[^\s[a-c]]{1,3}(?!d)`, `\p{^Lu}$|^b(?<!a)c++`} {
		f.Add(s, "a B\n'll x12")
	}
	f.Fuzz(func(t *testing.T, source, text string) {
		if len(text) > 1000 {
			return
		}
		e, err := compile(source)
		if err != nil {
			return
		}
		var all strings.Builder
		e.each(lossy(text), func(part string, _ bool) {
			if part == "" {
				t.Error("an empty part")
			}
			all.WriteString(part)
		})
		if all.String() != lossy(text) {
			t.Errorf("%s: parts of %q are %q", source, text, all.String())
		}
	})
}
