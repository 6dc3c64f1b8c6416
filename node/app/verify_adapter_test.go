package app

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/shard/safetensors"
)

// verified verifies what is at a path, and returns the answer.
func verified(t *testing.T, n *node, req api.VerifyAdapterRequest) api.AdapterCheck {
	t.Helper()
	v, err := n.VerifyAdapter(t.Context(), req, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if failed := slices.ContainsFunc(v.Checks, func(c api.Check) bool { return c.Level == api.CheckFail }); failed == v.OK {
		t.Errorf("ok is %v: %+v", v.OK, v.Checks)
	}
	return v
}

// wantFailed wants these checks to have failed, the first with a text that has want.
func wantFailed(t *testing.T, v api.AdapterCheck, want string, names ...string) {
	t.Helper()
	for i, name := range names {
		at := slices.IndexFunc(v.Checks, func(c api.Check) bool { return c.Name == name && c.Level == api.CheckFail })
		if at < 0 || i == 0 && !strings.Contains(v.Checks[at].Text, want) {
			t.Errorf("%s did not fail with %q: %+v", name, want, v.Checks)
		}
	}
}

// exportsOf exports a run in every format.
func exportsOf(t *testing.T, n *node, id string) map[string]string {
	t.Helper()
	dirs := map[string]string{}
	for name, req := range map[string]api.ExportRequest{
		"peft":   {Format: api.ExportPEFT},
		"gguf":   {Format: api.ExportGGUF},
		"f16":    {Format: api.ExportGGUF, DType: "f16"},
		"merged": {Format: api.ExportMerged},
		"nf4":    {Format: api.ExportMerged, NF4: true},
	} {
		req.Run = id
		dirs[name] = exportTo(t, n, req).Dir
	}
	return dirs
}

// What was exported is right, with and without its origin.
func TestVerifyAdapter(t *testing.T) {
	n, r, id := trained(t, "")
	for name, dir := range exportsOf(t, n, id) {
		v := verified(t, n, api.VerifyAdapterRequest{Path: dir})
		var names []string
		for _, c := range v.Checks {
			if names = append(names, c.Name); c.Level != api.CheckOK {
				t.Errorf("%s: %+v", name, c)
			}
		}
		slices.Sort(names)
		if !v.OK || !slices.Equal(names, []string{"base", "effect", "files", "run", "tensors"}) || v.Run != id || v.Round != 2 ||
			v.State != r.snapshot.ID.String() || v.Test == nil || v.Test.Effect < 0.01 {
			t.Errorf("%s: %+v", name, v)
		}
		// A card may be edited.
		if err := os.WriteFile(filepath.Join(dir, cardFile), []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		if v := verified(t, n, api.VerifyAdapterRequest{Path: dir}); !v.OK {
			t.Errorf("%s with another card: %+v", name, v)
		}
		if err := os.Remove(filepath.Join(dir, originFile)); err != nil {
			t.Fatal(err)
		}
		// Without origin it is compared with what is named.
		v = verified(t, n, api.VerifyAdapterRequest{Path: dir, Run: id})
		if !v.OK || v.Checks[0].Name != "files" || v.Checks[0].Level != api.CheckWarn || v.Checks[1].Name != "base" {
			t.Errorf("%s without origin: %+v", name, v)
		}
		v = verified(t, n, api.VerifyAdapterRequest{Path: dir, Model: r.manifest.Model.String()})
		if !v.OK || v.Test == nil {
			t.Errorf("%s by itself: %+v", name, v)
		}
	}
	_, err := n.VerifyAdapter(t.Context(), api.VerifyAdapterRequest{Path: t.TempDir()}, quiet)
	wantCode(t, err, api.CodeNotFound, "no adapter_config.json")
	_, err = n.VerifyAdapter(t.Context(), api.VerifyAdapterRequest{Path: theirAdapter(t, "plain")}, quiet)
	wantCode(t, err, api.CodeUsage, "for which base model")
	if v := verified(t, n, api.VerifyAdapterRequest{Path: theirAdapter(t, "plain"), Model: r.manifest.Model.String()}); !v.OK {
		t.Errorf("an adapter from elsewhere: %+v", v)
	}
}

// What an origin says is of the files that it lists.
func TestVerifyAdapterBesideOthers(t *testing.T) {
	n, r, id := trained(t, "")
	dir := exportTo(t, n, api.ExportRequest{Run: id, Format: api.ExportGGUF}).Dir
	other := filepath.Join(dir, "other.gguf")
	write(t, other, readBytes(t, filepath.Join(dir, ggufFile)))
	v := verified(t, n, api.VerifyAdapterRequest{Path: other, Model: r.manifest.Model.String()})
	if !v.OK || v.Run != "" || v.Round != 0 || v.Head != "" || v.State != "" || v.Checks[0].Text != originFile+" says nothing of other.gguf" || v.Checks[1].Name == "files" {
		t.Errorf("a file that is not listed: %+v", v)
	}
	// A model in it that is none is said to be.
	o, err := readOrigin(dir)
	if err != nil {
		t.Fatal(err)
	}
	o.Run, o.Model = "", "mine"
	b, err := o.encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, originFile), b)
	base, err := n.modelDir(t.Context(), r.manifest.Model)
	if err != nil {
		t.Fatal(err)
	}
	// What it says is no part of a command to copy.
	for name, want := range map[string]bool{r.manifest.Model.String(): true, "x; sh evil #": false, "$(evil)": false} {
		elsewhere, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
		o.Model = name
		if b, err = o.encode(); err != nil {
			t.Fatal(err)
		}
		named := t.TempDir()
		write(t, filepath.Join(named, originFile), b)
		write(t, filepath.Join(named, ggufFile), readBytes(t, filepath.Join(dir, ggufFile)))
		_, err := elsewhere.VerifyAdapter(t.Context(), api.VerifyAdapterRequest{Path: named}, quiet)
		wantCode(t, err, api.CodeNotFound, "is not here")
		if hint := api.AsError(err).Hint; strings.Contains(hint, "shard pull "+name) != want || strings.Contains(hint, name) != want || !strings.Contains(hint, "import it") {
			t.Errorf("the way out for %q is %q", name, hint)
		}
	}
	v = verified(t, n, api.VerifyAdapterRequest{Path: dir, Model: base})
	if v.OK || !slices.ContainsFunc(v.Checks, func(c api.Check) bool { return c.Name == "base" && strings.Contains(c.Text, `"mine", which is no CID`) }) {
		t.Errorf("a model that is none: %+v", v)
	}
}

// A folder of the base model is told from one of the same shape by its CID, where the
// model itself is not.
func TestVerifyAdapterElsewhere(t *testing.T) {
	n, r, id := trained(t, "")
	e := exportTo(t, n, api.ExportRequest{Run: id})
	elsewhere, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	other := t.TempDir()
	if err := os.CopyFS(other, os.DirFS(assets(t).ModelDir)); err != nil {
		t.Fatal(err)
	}
	weights := readBytes(t, filepath.Join(other, "model.safetensors"))
	weights[len(weights)-2] ^= 1
	write(t, filepath.Join(other, "model.safetensors"), weights)
	base := r.manifest.Model.String()
	for _, tt := range []struct {
		dir   string
		level api.CheckLevel
		text  string
	}{
		{assets(t).ModelDir, api.CheckOK, " is " + base},
		{other, api.CheckWarn, "it was trained on " + base + ", which is not here to compare with; " + other + " is baf"},
	} {
		v := verified(t, elsewhere, api.VerifyAdapterRequest{Path: e.Dir, Model: tt.dir})
		at := slices.IndexFunc(v.Checks, func(c api.Check) bool { return c.Name == "base" })
		if at < 0 || v.Checks[at].Level != tt.level || !strings.Contains(v.Checks[at].Text, tt.text) || strings.Contains(v.Checks[at].Fix, "shard pull "+base) != (tt.level == api.CheckWarn) {
			t.Errorf("%s: %+v", tt.dir, v.Checks)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(elsewhere.dir, importTemp+"*")); len(left) > 0 || len(elsewhere.models.list()) > 0 {
		t.Errorf("left %v, models %v", left, elsewhere.models.list())
	}
}

// TestVerifyAdapterOfFourBits: a folder of the model in four bits is the one that it was
// trained on.
func TestVerifyAdapterOfFourBits(t *testing.T) {
	n, r, id := trained(t, api.QuantizeNF4)
	e := exportTo(t, n, api.ExportRequest{Run: id})
	dir, err := n.modelDir(t.Context(), r.manifest.Model)
	if err != nil {
		t.Fatal(err)
	}
	v := verified(t, n, api.VerifyAdapterRequest{Path: e.Dir, Model: dir})
	at := slices.IndexFunc(v.Checks, func(c api.Check) bool { return c.Name == "base" })
	if !v.OK || at < 0 || v.Checks[at].Level != api.CheckOK || !strings.Contains(v.Checks[at].Text, "has the weights of") {
		t.Errorf("%+v", v)
	}
}

// Whatever byte of an export is another one, or missing, is found: by the file
// that says what they were, and of the adapter's values also by the run alone.
func TestVerifyAdapterFindsFlips(t *testing.T) {
	n, _, id := trained(t, "")
	draw := rand.New(rand.NewPCG(1, 2))
	for name, dir := range exportsOf(t, n, id) {
		flips := map[string]int{"peft": 50, "gguf": 10, "merged": 10}[name]
		if testing.Short() {
			flips = min(flips, 10)
		}
		var files []string
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.Name() != cardFile {
				files = append(files, filepath.Join(dir, e.Name()))
			}
		}
		for i := range flips {
			path := files[i%len(files)]
			right := readBytes(t, path)
			at, bit := draw.IntN(len(right)), byte(1)<<draw.IntN(8)
			damaged := bytes.Clone(right)
			damaged[at] ^= bit
			if i%10 == 9 {
				damaged = right[:at]
			}
			write(t, path, damaged)
			v, err := n.VerifyAdapter(t.Context(), api.VerifyAdapterRequest{Path: dir}, quiet)
			if err == nil && v.OK || err != nil && api.AsError(err).Code == api.CodeInternal {
				t.Errorf("%s: bit %#x of byte %d of %s: %+v, %v", name, bit, at, filepath.Base(path), v.Checks, err)
			}
			write(t, path, right)
		}
		// The weights alone, without the file that has their hash.
		if err := os.Remove(filepath.Join(dir, originFile)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, map[string]string{"peft": lora.WeightsFile, "gguf": ggufFile, "f16": ggufFile}[name])
		if strings.HasSuffix(path, dir) || name == "merged" || name == "nf4" {
			path = filepath.Join(dir, "model.safetensors")
		}
		right := readBytes(t, path)
		for range 2 {
			at := len(right)/4 + draw.IntN(len(right)/4*3) // behind the header
			damaged := bytes.Clone(right)
			damaged[at] ^= 1 << draw.IntN(8)
			write(t, path, damaged)
			v := verified(t, n, api.VerifyAdapterRequest{Path: dir, Run: id})
			if v.OK {
				t.Errorf("%s: byte %d of %s, without origin: %+v", name, at, filepath.Base(path), v.Checks)
			}
		}
	}
}

// What is wrong is named, with the place.
func TestVerifyAdapterNamesPlaces(t *testing.T) {
	n, r, id := trained(t, "")
	base := r.manifest.Model.String()
	export := func(format string) string {
		dir := exportTo(t, n, api.ExportRequest{Run: id, Format: format}).Dir
		if err := os.Remove(filepath.Join(dir, originFile)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	retensor := func(path string, change func(list []safetensors.Tensor) []safetensors.Tensor) {
		t.Helper()
		f, err := safetensors.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var list []safetensors.Tensor
		for _, i := range f.Header().Tensors {
			values, _, err := f.ReadTensor(i.Name)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, safetensors.Tensor{Name: i.Name, DType: i.DType, Shape: i.Shape, Values: values})
		}
		f.Close()
		var b bytes.Buffer
		if err := safetensors.Write(&b, change(list), map[string]string{"format": "pt"}); err != nil {
			t.Fatal(err)
		}
		write(t, path, b.Bytes())
	}
	const first = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
	for _, tt := range []struct {
		name, check, want string
		change            func([]safetensors.Tensor) []safetensors.Tensor
	}{
		{"not a number", "tensors", first + ": value 2 is NaN", func(l []safetensors.Tensor) []safetensors.Tensor {
			l[index(l, first)].Values[2] = float32(nan())
			return l
		}},
		{"A and B swapped", "tensors", first, func(l []safetensors.Tensor) []safetensors.Tensor {
			for i := range l {
				l[i].Name = strings.NewReplacer("lora_A", "lora_B", "lora_B", "lora_A").Replace(l[i].Name)
			}
			return l
		}},
		{"a layer is missing", "tensors", first + " is missing", func(l []safetensors.Tensor) []safetensors.Tensor {
			i := index(l, first)
			return slices.Delete(l, i, i+1)
		}},
		{"two layers swapped", "run", "value 0 is", func(l []safetensors.Tensor) []safetensors.Tensor {
			i, j := index(l, first), index(l, strings.Replace(first, "layers.0", "layers.1", 1))
			l[i].Name, l[j].Name = l[j].Name, l[i].Name
			return l
		}},
	} {
		dir := export(api.ExportPEFT)
		retensor(filepath.Join(dir, lora.WeightsFile), tt.change)
		v := verified(t, n, api.VerifyAdapterRequest{Path: dir, Run: id})
		t.Logf("%s: %+v", tt.name, v.Checks)
		wantFailed(t, v, tt.want, tt.check)
	}
	for _, tt := range []struct{ was, is, want string }{
		{`"lora_alpha": 32`, `"lora_alpha": 16`, "is scaled by"},
		{`"r": 16`, `"r": 4`, ""},
	} {
		dir := export(api.ExportPEFT)
		path := filepath.Join(dir, lora.ConfigFile)
		b := readBytes(t, path)
		changed := bytes.Replace(b, []byte(tt.was), []byte(tt.is), 1)
		if bytes.Equal(b, changed) {
			t.Fatalf("no %s in %s", tt.was, b)
		}
		write(t, path, changed)
		v := verified(t, n, api.VerifyAdapterRequest{Path: dir, Run: id})
		name := "run"
		if tt.want == "" {
			name = "tensors"
		}
		wantFailed(t, v, tt.want, name)
	}

	merged := export(api.ExportMerged)
	retensor(filepath.Join(merged, "model.safetensors"), func(l []safetensors.Tensor) []safetensors.Tensor {
		l[index(l, "model.layers.0.mlp.down_proj.weight")].Values[2] = float32(nan())
		return l
	})
	wantFailed(t, verified(t, n, api.VerifyAdapterRequest{Path: merged, Model: base}), "model.layers.0.mlp.down_proj.weight: value 2 is NaN", "tensors")

	// Nothing but the base model.
	wantFailed(t, verified(t, n, api.VerifyAdapterRequest{Path: copyDir(t, assets(t).ModelDir), Model: base}), "changes nothing", "effect")

	// Another base model, of the same form.
	other := copyDir(t, assets(t).ModelDir)
	retensor(filepath.Join(other, "model.safetensors"), func(l []safetensors.Tensor) []safetensors.Tensor {
		l[index(l, "model.norm.weight")].Values[1] *= 1.25
		return l
	})
	dir := exportTo(t, n, api.ExportRequest{Run: id}).Dir
	wantFailed(t, verified(t, n, api.VerifyAdapterRequest{Path: dir, Model: other}), "model.norm.weight", "base")
	same := verified(t, n, api.VerifyAdapterRequest{Path: dir, Model: copyDir(t, assets(t).ModelDir)})
	if !same.OK {
		t.Errorf("a copy of the base model: %+v", same.Checks)
	}
	otherID := importModel(t, n, other, "").ID
	wantFailed(t, verified(t, n, api.VerifyAdapterRequest{Path: dir, Model: otherID}), "not on "+otherID, "base")

	// A GGUF file that lacks a block, by itself.
	config, err := model.ReadConfig(assets(t).ModelDir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := train.Modules(config)
	a, err := lora.ReadAny(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := a.Spec()
	s.Exclude = []string{"layers.1.mlp.down_proj"}
	fewer, err := lora.New(s, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for i := range fewer.Values() {
		fewer.Values()[i] = float32(i%7) / 10
	}
	gguf, err := lora.ReadGGUFBase(assets(t).ModelDir)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := fewer.WriteGGUF(&b, gguf, safetensors.F32); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.gguf")
	write(t, path, b.Bytes())
	v := verified(t, n, api.VerifyAdapterRequest{Path: path, Model: base})
	if !strings.Contains(fmt.Sprint(v.Checks), "model.layers.1.mlp.down_proj is adapted in other blocks and not in this one") {
		t.Errorf("%+v", v.Checks)
	}
	wantFailed(t, verified(t, n, api.VerifyAdapterRequest{Path: path, Run: id}), "model.layers.1.mlp.down_proj: is not adapted", "run")
}

func readBytes(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func index(l []safetensors.Tensor, name string) int {
	return slices.IndexFunc(l, func(x safetensors.Tensor) bool { return x.Name == name })
}
