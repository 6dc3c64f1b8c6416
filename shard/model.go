package shard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/shard/safetensors"
)

// Model is what a checkpoint folder was found to hold.
type Model struct {
	Import
	Type          string   // model_type of config.json, such as "llama"
	Architectures []string // of config.json
	Weights       []string // safetensors files with the weights, sorted
	WeightBytes   int64
	Tensors       int
	Parameters    int64    // numbers in all weights; of a quantised model, as stored
	Tokenizer     []string // tokenizer files, sorted; may be empty
	Licence       string   // from the front matter of README.md, "" if it says none
	LicenceFiles  []string // sorted
	Warnings      []string // for people
}

// ImportModel checks a Hugging Face checkpoint folder and stores it. It wants
// config.json and safetensors; files that hold pickled Python objects are
// refused, because loading one runs what is in it.
func (s *Store) ImportModel(ctx context.Context, dir string, opts ImportOptions) (Model, error) {
	m, err := s.importModel(ctx, dir, opts)
	if err != nil {
		return Model{}, fmt.Errorf("import model %s: %w", dir, err)
	}
	return m, nil
}

func (s *Store) importModel(ctx context.Context, dir string, opts ImportOptions) (Model, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Model{}, err
	}
	defer func() { _ = root.Close() }() // nothing to lose
	folder, err := scan(ctx, root, opts.follow())
	if err != nil {
		return Model{}, err
	}
	c := newCheckpoint(root.FS())
	if opts.follow() {
		c.fs = os.DirFS(dir) // scan has looked where links lead
	}
	_ = folder.all(func(f file) error { c.files[f.path] = f.info.Size(); return nil }) // fn never fails
	m, err := c.check()
	if err != nil {
		return Model{}, err
	}
	m.Import, err = importFolder(ctx, s, root, folder, opts)
	return m, err
}

// CheckModel does the checks of [Store.ImportModel] on the DAG root. Of the
// weights, only the headers need be local.
func (s *Store) CheckModel(ctx context.Context, root cid.Cid) (Model, error) {
	m, err := s.checkModel(ctx, root)
	if err != nil {
		return Model{}, fmt.Errorf("check model %s: %w", root, incomplete(err))
	}
	return m, nil
}

func (s *Store) checkModel(ctx context.Context, root cid.Cid) (Model, error) {
	// The plan bounds what a hostile directory can be unrolled to.
	p := newPlan(maxDAGBytes)
	if err := p.add(ctx, s, root, ".", 1); err != nil {
		return Model{}, err
	}
	c := newCheckpoint(s.FS(ctx, root))
	for _, f := range p.files {
		c.files[f.path] = f.size
	}
	m, err := c.check()
	if err != nil {
		return Model{}, err
	}
	blocks := make(map[cid.Cid]bool)
	if err := s.collect(ctx, root, blocks, 1); err != nil {
		return Model{}, err
	}
	m.Import = Import{Root: root, Bytes: p.bytes, Files: len(p.files), Blocks: len(blocks)}
	return m, nil
}

// checkpoint is a folder that should hold a model.
type checkpoint struct {
	fs    fs.FS
	files map[string]int64 // sizes by path
	model Model
}

func newCheckpoint(f fs.FS) *checkpoint { return &checkpoint{fs: f, files: make(map[string]int64)} }

func (c *checkpoint) check() (Model, error) {
	for _, f := range []func() error{c.refusePickle, c.readConfig, c.findWeights, c.readWeights, c.findOthers, c.readLicence} {
		if err := f(); err != nil {
			return Model{}, err
		}
	}
	return c.model, nil
}

func (c *checkpoint) warn(format string, args ...any) {
	c.model.Warnings = append(c.model.Warnings, fmt.Sprintf(format, args...))
}

// paths are all files, sorted.
func (c *checkpoint) paths() []string { return slices.Sorted(maps.Keys(c.files)) }

// top are the files that are not in a subfolder, sorted.
func (c *checkpoint) top() []string {
	return slices.DeleteFunc(c.paths(), func(p string) bool { return strings.Contains(p, "/") })
}

const pickleHint = `loading such a file runs the program in it, so only safetensors are taken; convert it where you trust it:
  python -c "from transformers import AutoModelForCausalLM as M; M.from_pretrained('.').save_pretrained('converted', safe_serialization=True)"
then remove it, or import the new folder with the tokenizer files copied to it`

func (c *checkpoint) refusePickle() error {
	var bad []string
	for _, p := range c.paths() {
		switch strings.ToLower(path.Ext(p)) {
		case ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle":
			bad = append(bad, p)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("%w: pickled weights: %s\n%s", ErrInvalid, some(bad), pickleHint)
}

// some lists names, but not thousands.
func some(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// read reads a small file whole.
func (c *checkpoint) read(name string, limit int64) ([]byte, error) {
	if size := c.files[name]; size > limit {
		return nil, fmt.Errorf("%s: %w: %d bytes, at most %d are allowed", name, ErrTooLarge, size, limit)
	}
	f, err := c.fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

func (c *checkpoint) readConfig() error {
	const name = "config.json"
	if _, ok := c.files[name]; !ok {
		return fmt.Errorf("%w: no %s: not a Hugging Face checkpoint", ErrInvalid, name)
	}
	b, err := c.read(name, maxConfigBytes)
	if err != nil {
		return err
	}
	var config struct {
		ModelType     string                     `json:"model_type"`
		Architectures []string                   `json:"architectures"`
		AutoMap       map[string]json.RawMessage `json:"auto_map"`
	}
	if !utf8.Valid(b) || !bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("{")) {
		return fmt.Errorf("%s: %w: not a JSON object", name, ErrInvalid)
	}
	if err := json.Unmarshal(b, &config); err != nil {
		return fmt.Errorf("%s: %w: %w", name, ErrInvalid, syntax(err))
	}
	c.model.Type, c.model.Architectures = config.ModelType, config.Architectures
	if config.ModelType == "" {
		c.warn("config.json has no model_type")
	}
	if len(config.AutoMap) > 0 {
		c.warn("config.json asks for Python code of the model's author, which is never run here")
	}
	return nil
}

const (
	weightsExt  = ".safetensors"
	indexExt    = ".safetensors.index.json"
	singleFile  = "model.safetensors"
	singleIndex = "model.safetensors.index.json"
)

// findWeights decides which files hold the weights: model.safetensors, else
// those of the index, else all.
func (c *checkpoint) findWeights() error {
	var tensors, indexes []string
	for _, p := range c.top() {
		switch {
		case strings.HasSuffix(p, weightsExt):
			tensors = append(tensors, p)
		case strings.HasSuffix(p, indexExt):
			indexes = append(indexes, p)
		}
	}
	switch {
	case slices.Contains(tensors, singleFile):
		c.model.Weights = []string{singleFile}
	case slices.Contains(indexes, singleIndex):
		return c.readIndex(singleIndex, tensors)
	case len(indexes) == 1:
		return c.readIndex(indexes[0], tensors)
	case len(indexes) > 1:
		return fmt.Errorf("%w: several indexes of weights (%s), and none is %s", ErrInvalid, some(indexes), singleIndex)
	case len(tensors) == 0:
		return fmt.Errorf("%w: no %s file", ErrInvalid, weightsExt)
	default:
		for _, p := range tensors {
			if strings.Contains(p, "-of-") {
				return fmt.Errorf("%w: %s is one of several, and there is no %s", ErrInvalid, p, singleIndex)
			}
		}
		c.model.Weights = tensors
	}
	c.warnUnused(tensors)
	return nil
}

func (c *checkpoint) warnUnused(tensors []string) {
	for _, p := range tensors {
		if !slices.Contains(c.model.Weights, p) {
			c.warn("%s (%d bytes) is not among the weights; without it the model is quicker to pull", p, c.files[p])
		}
	}
}

// readIndex checks that the index names files that are there and tensors that are in them.
func (c *checkpoint) readIndex(name string, tensors []string) error {
	b, err := c.read(name, maxIndexBytes)
	if err != nil {
		return err
	}
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(b, &index); err != nil {
		return fmt.Errorf("%s: %w: %w", name, ErrInvalid, syntax(err))
	}
	if len(index.WeightMap) == 0 {
		return fmt.Errorf("%s: %w: weight_map is empty", name, ErrInvalid)
	}
	byFile := make(map[string][]string)
	for tensor, file := range index.WeightMap {
		byFile[file] = append(byFile[file], tensor)
	}
	for _, file := range slices.Sorted(maps.Keys(byFile)) {
		if !slices.Contains(tensors, file) { // which also keeps paths out
			return fmt.Errorf("%s: %w: it names %.100q, which is not there", name, ErrInvalid, file)
		}
		h, err := c.header(file)
		if err != nil {
			return err
		}
		want := byFile[file]
		sort.Strings(want)
		for _, tensor := range want {
			if _, ok := h.Lookup(tensor); !ok {
				return fmt.Errorf("%s: %w: it says that %.100q is in %s, which has none of that name", name, ErrInvalid, tensor, file)
			}
		}
		c.model.Weights = append(c.model.Weights, file)
	}
	c.warnUnused(tensors)
	return nil
}

// header reads and checks the header of a safetensors file.
func (c *checkpoint) header(name string) (*safetensors.Header, error) {
	f, err := c.fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	r, ok := f.(io.ReaderAt)
	if !ok {
		return nil, errors.New("bug: file without ReadAt")
	}
	h, err := safetensors.ReadHeader(r, c.files[name])
	if errors.Is(err, safetensors.ErrFormat) {
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return h, nil
}

// readWeights checks the header of every safetensors file, in whatever
// folder, and counts what the weights hold.
func (c *checkpoint) readWeights() error {
	files, headers := 0, int64(0)
	for _, p := range c.paths() {
		if !strings.HasSuffix(p, weightsExt) {
			continue
		}
		h, err := c.header(p)
		if err != nil {
			return err
		}
		// One leaf that is linked to often is many files.
		files, headers = files+1, headers+h.DataStart
		if files > maxWeightFiles || headers > maxHeaderBytes {
			return fmt.Errorf("%w: more than %d %s files, or more than %d bytes of headers", ErrTooLarge, maxWeightFiles, weightsExt, maxHeaderBytes)
		}
		if !slices.Contains(c.model.Weights, p) {
			continue
		}
		c.model.WeightBytes += c.files[p]
		c.model.Tensors += len(h.Tensors)
		for _, t := range h.Tensors {
			c.model.Parameters += t.Elements()
		}
	}
	return nil
}

func (c *checkpoint) findOthers() error {
	for _, p := range c.top() {
		lower := strings.ToLower(p)
		switch lower {
		case "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
			"vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json":
			c.model.Tokenizer = append(c.model.Tokenizer, p)
		}
		for _, prefix := range []string{"license", "licence", "copying", "notice"} {
			if strings.HasPrefix(lower, prefix) {
				c.model.LicenceFiles = append(c.model.LicenceFiles, p)
				break
			}
		}
	}
	if !slices.Contains(c.model.Tokenizer, "tokenizer.json") && !slices.Contains(c.model.Tokenizer, "tokenizer.model") {
		c.warn("no tokenizer.json or tokenizer.model: text cannot be turned into tokens")
	}
	return nil
}

func (c *checkpoint) readLicence() error {
	const name = "README.md"
	size, ok := c.files[name]
	if !ok {
		return nil
	}
	f, err := c.fs.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	b := make([]byte, min(size, maxReadmeBytes))
	if _, err := io.ReadFull(f, b); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	c.model.Licence = frontMatterLicence(b)
	return nil
}
