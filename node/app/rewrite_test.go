package app

import (
	"archive/zip"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/shard/safetensors"
)

// legacyModel is the bundled model with its weights as torch.save writes them.
func legacyModel(t *testing.T) string {
	t.Helper()
	dir := copyDir(t, assets(t).ModelDir)
	asTorch(t, filepath.Join(dir, "model.safetensors"), filepath.Join(dir, "pytorch_model.bin"))
	return dir
}

// asTorch moves tensors into a file as torch.save writes it.
func asTorch(t *testing.T, path, to string) {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	z := zip.NewWriter(out)
	put := func(name, data string) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: "archive/" + name, Method: zip.Store})
		if err == nil {
			_, err = w.Write([]byte(data))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	u32 := func(op string, n int) string { return op + string(binary.LittleEndian.AppendUint32(nil, uint32(n))) }
	text := func(s string) string { return u32("X", len(s)) + s }
	const dict = "ccollections\nOrderedDict\n)R"
	storages := map[safetensors.DType]string{safetensors.F32: "FloatStorage", safetensors.BF16: "BFloat16Storage", safetensors.F16: "HalfStorage"}
	pickle := "\x80\x02" + dict + "("
	for i, info := range f.Header().Tensors {
		raw, _, err := f.ReadRaw(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		put(fmt.Sprintf("data/%d", i), string(raw))
		size, stride, n := "(", "", 1
		for _, d := range slices.Backward(info.Shape) {
			stride = u32("J", n) + stride
			n *= int(d)
		}
		for _, d := range info.Shape {
			size += u32("J", int(d))
		}
		pickle += text(info.Name) + "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\n" + storages[info.DType] + "\n" +
			text(fmt.Sprint(i)) + text("cpu") + u32("J", n) + "tQK\x00" + size + "t(" + stride + "t\x89" + dict + "tR"
	}
	put("data.pkl", pickle+"u.")
	put("version", "3\n")
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func importModel(t *testing.T, n *node, dir, quantize string) api.Model {
	t.Helper()
	m, err := n.ImportModel(t.Context(), api.ImportModelRequest{Dir: dir, Quantize: quantize}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A pickle becomes safetensors, with the values that it has.
func TestImportLegacy(t *testing.T) {
	home := t.TempDir()
	n, _ := testNode(t, home, new(fakeRuns).open)
	legacy := legacyModel(t)
	m := importModel(t, n, legacy, "")
	if !m.Trainable || !strings.Contains(strings.Join(m.Warnings, "\n"), "pytorch_model.bin") {
		t.Errorf("model %+v", m)
	}
	if again := importModel(t, n, legacy, ""); again.ID != m.ID {
		t.Errorf("imported again it is %s, was %s", again.ID, m.ID)
	}
	want := ask(t, n, api.Subject{Model: assets(t).ModelDir}, 8, "Who are you?")
	if got := ask(t, n, api.Subject{Model: m.ID}, 8, "Who are you?"); got[0].Text != want[0].Text {
		t.Errorf("it answers %q, from safetensors %q", got[0].Text, want[0].Text)
	}
	if _, err := n.store.Lookup(t.Context(), cid.MustParse(m.ID), "pytorch_model.bin"); err == nil {
		t.Error("the pickle was stored")
	}
	if err := os.WriteFile(filepath.Join(legacy, "pytorch_model.bin"), []byte("cos\nsystem\n(S'id'\ntR."), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := n.ImportModel(t.Context(), api.ImportModelRequest{Dir: legacy}, quiet)
	wantCode(t, err, api.CodeModel, "pytorch_model.bin")
	if left, _ := filepath.Glob(filepath.Join(home, importTemp+"*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// The same model in four bits is the same, whatever it was read from; it is
// evaluated, trained and launched.
func TestImportNF4(t *testing.T) {
	home := t.TempDir()
	n, stop := testNode(t, home, new(fakeRuns).open)
	plain, d := imported(t, n)
	m := importModel(t, n, assets(t).ModelDir, api.QuantizeNF4)
	if !m.Trainable || m.ID == plain.ID || m.Bytes >= plain.Bytes || m.Parameters != plain.Parameters || m.Name != "model-nf4" || len(m.Warnings) == 0 {
		t.Errorf("model %+v, 16-bit one has %d bytes", m, plain.Bytes)
	}
	if legacy := importModel(t, n, legacyModel(t), api.QuantizeNF4); legacy.ID != m.ID {
		t.Errorf("from pytorch_model.bin it is %s, from safetensors %s", legacy.ID, m.ID)
	}
	evaluate := func(id string) api.Evaluation {
		ev, err := n.Evaluate(t.Context(), api.EvaluateRequest{Subject: api.Subject{Model: id}, Dataset: d.ID, MaxRows: 10, LossOnly: true}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		return ev
	}
	if a, b := evaluate(plain.ID).Loss, evaluate(m.ID).Loss; a == b || math.Abs(a-b) > 0.2*a {
		t.Errorf("loss %v in four bits, %v in 16", b, a)
	}
	dir, err := n.modelDir(t.Context(), cid.MustParse(m.ID))
	if err != nil {
		t.Fatal(err)
	}
	text := runText(m, d, "[inner]\nsequence_tokens = 64\n")
	manifest, err := n.manifest(t.Context(), &api.LaunchRequest{Name: "run.toml", TOML: text}, n.started)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := train.Open(train.Options{ModelDir: dir, Spec: runner.Spec(manifest), MaxTokens: 64})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	sample := train.Sample{IDs: []int32{1, 2, 3, 4, 5}, Labels: []int32{train.NotCounted, 2, 3, 4, 5}}
	first, _, err := tr.Step(t.Context(), []train.Sample{sample}, 0.01)
	if err != nil {
		t.Fatal(err)
	}
	if second, _, err := tr.Step(t.Context(), []train.Sample{sample}, 0.01); err != nil || second >= first {
		t.Errorf("loss %v after %v, %v", second, first, err)
	}
	_, err = n.ImportModel(t.Context(), api.ImportModelRequest{Dir: dir, Quantize: api.QuantizeNF4}, quiet)
	wantCode(t, err, api.CodeModel, "quantised already")

	// What a killed process leaves is removed by the next.
	stop()
	left := filepath.Join(home, importTemp+"123")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	testNode(t, home, new(fakeRuns).open)
	if _, err := os.Stat(left); err == nil {
		t.Error("an interrupted import was not removed")
	}
}
