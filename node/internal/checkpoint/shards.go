package checkpoint

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moot-net/moot/shard/safetensors"
)

// MaxShardBytes is how large a file of weights becomes by default.
const MaxShardBytes = 5_000_000_000

// maxCopyBytes bounds the files beside the weights that are copied.
const maxCopyBytes = 256 << 20

// Group is tensors that are written into the same file. What is needed to
// write them is made just before.
type Group struct {
	Bytes   int64 // in the file, about
	Prepare func() ([]safetensors.Source, error)
}

// Plain is a group of one tensor, copied as it is stored.
func (f *Folder) Plain(t Tensor) Group {
	return Group{Bytes: t.Bytes(), Prepare: func() ([]safetensors.Source, error) {
		return []safetensors.Source{{Name: t.Name, DType: t.DType, Shape: t.Shape, Write: func(w io.Writer) error {
			r, err := f.raw[t.Name].file.Data(t.Name)
			if err == nil {
				_, err = io.Copy(w, r)
			}
			return err
		}}}, nil
	}}
}

// WriteOptions say how weights are written.
type WriteOptions struct {
	// MaxShardBytes is the size from which a new file is begun. Default
	// MaxShardBytes.
	MaxShardBytes int64
	// Metadata is put into each file's header, beside the format.
	Metadata map[string]string
	// Progress, if not nil, is told how many of all bytes were written.
	Progress func(done, total int64)
}

// WriteShards writes groups in their order as model.safetensors, or, if they
// are too large for one file, as shards with an index. The bytes depend on the
// groups and options alone.
func WriteShards(ctx context.Context, dir string, groups []Group, o WriteOptions) error {
	if o.MaxShardBytes <= 0 {
		o.MaxShardBytes = MaxShardBytes
	}
	metadata := map[string]string{"format": "pt"}
	for k, v := range o.Metadata {
		metadata[k] = v
	}
	shards, total := split(groups, o.MaxShardBytes)
	p := &progress{ctx: ctx, total: total, tell: o.Progress}
	index := struct {
		Metadata struct {
			Total int64 `json:"total_size"`
		} `json:"metadata"`
		Map map[string]string `json:"weight_map"`
	}{Map: map[string]string{}}
	for i, shard := range shards {
		name := weightsFile
		if len(shards) > 1 {
			name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		}
		var sources []safetensors.Source
		for _, g := range shard {
			if err := ctx.Err(); err != nil {
				return err
			}
			s, err := g.Prepare()
			if err != nil {
				return err
			}
			sources = append(sources, s...)
		}
		for _, s := range sources {
			index.Map[s.Name] = name
			index.Metadata.Total += Tensor{DType: s.DType, Shape: s.Shape}.Bytes()
		}
		err := writeFile(filepath.Join(dir, name), func(w io.Writer) error {
			p.w = w
			return safetensors.WriteSources(p, sources, metadata)
		})
		if err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	if o.Progress != nil {
		o.Progress(total, total)
	}
	if len(shards) < 2 {
		return nil
	}
	b, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return err
	}
	return writeBytes(filepath.Join(dir, weightsFile+indexSuffix), append(b, '\n'))
}

func split(groups []Group, limit int64) (shards [][]Group, total int64) {
	size := limit // begins a file
	for _, g := range groups {
		if size+g.Bytes > limit && (size > 0 || len(shards) == 0) {
			shards, size = append(shards, nil), 0
		}
		shards[len(shards)-1] = append(shards[len(shards)-1], g)
		size += g.Bytes
		total += g.Bytes
	}
	return shards, total
}

// progress counts what is written, and ends it when the context is done.
type progress struct {
	ctx         context.Context
	w           io.Writer
	done, total int64
	tell        func(done, total int64)
}

func (p *progress) Write(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := p.w.Write(b)
	p.done += int64(n)
	if p.tell != nil {
		p.tell(min(p.done, p.total), p.total)
	}
	return n, err
}

// writeFile writes a file under another name, and renames it when it is on the
// disk.
func writeFile(path string, write func(w io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".part-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	w := bufio.NewWriterSize(f, 1<<20)
	err = write(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func writeBytes(path string, b []byte) error {
	return writeFile(path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// NewFolder makes a folder, or takes one that is empty.
func NewFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("folder %s is not empty: name another one", dir)
	}
	return err
}

// CopyRest copies what is beside the weights and config.json: tokenizer,
// generation settings, licence. Folders and hidden files are left out.
func CopyRest(dst, src string) error {
	entries, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		info, err := os.Stat(filepath.Join(src, name)) // a cache of downloads has links
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() || name == configFile || strings.HasPrefix(name, ".") || info.Size() > maxCopyBytes || isWeights(name) {
			continue
		}
		b, err := readSmall(filepath.Join(src, name), maxCopyBytes)
		if err == nil {
			err = writeBytes(filepath.Join(dst, name), b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func isWeights(name string) bool {
	return strings.HasSuffix(name, indexSuffix) || slices.Contains([]string{
		".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".ot",
	}, strings.ToLower(filepath.Ext(name)))
}

// Config is a model's config.json, as settings by name.
type Config map[string]json.RawMessage

// ReadConfig reads config.json of a folder.
func ReadConfig(dir string) (Config, error) {
	b, err := readSmall(filepath.Join(dir, configFile), maxConfigBytes)
	if err != nil {
		return nil, err
	}
	var c Config
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", configFile, ErrFormat, err)
	}
	if c == nil {
		return nil, fmt.Errorf("%s: %w: no settings", configFile, ErrFormat)
	}
	return c, nil
}

// Write writes config.json, sorted by name as Hugging Face's libraries do. It
// is written last: a folder with it is complete.
func (c Config) Write(dir string) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(c); err != nil {
		return err
	}
	if err := writeBytes(filepath.Join(dir, configFile), b.Bytes()); err != nil {
		return err
	}
	return syncFolder(dir)
}

// Text returns a setting that is a string, or "".
func (c Config) Text(name string) string {
	var s string
	if json.Unmarshal(c[name], &s) != nil {
		return ""
	}
	return s
}

// syncFolder makes renames last. Some systems cannot do it for folders, and do
// not need it.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrInvalid) {
		return err
	}
	return nil
}

// Convert writes a checkpoint of any kind that Open reads as a folder of
// safetensors. dst is empty or does not exist.
func Convert(ctx context.Context, src, dst string, o WriteOptions) error {
	if err := convert(ctx, src, dst, o); err != nil {
		return fmt.Errorf("convert %s: %w", src, err)
	}
	return nil
}

func convert(ctx context.Context, src, dst string, o WriteOptions) error {
	c, err := ReadConfig(src)
	if err != nil {
		return err
	}
	f, err := Open(src)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := NewFolder(dst); err != nil {
		return err
	}
	var groups []Group
	for _, t := range f.list {
		groups = append(groups, f.group(t))
	}
	if err := WriteShards(ctx, dst, groups, o); err != nil {
		return err
	}
	if err := CopyRest(dst, src); err != nil {
		return err
	}
	return c.Write(dst)
}

// group copies a tensor and its parts.
func (f *Folder) group(t Tensor) Group {
	if !t.NF4 {
		return f.Plain(t)
	}
	names := []string{t.Name}
	for name := range f.raw {
		if strings.HasPrefix(name, t.Name+".") && f.partOf(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	g := Group{}
	for _, name := range names {
		g.Bytes += f.raw[name].Bytes()
	}
	g.Prepare = func() ([]safetensors.Source, error) {
		var all []safetensors.Source
		for _, name := range names {
			s, err := f.Plain(f.raw[name].Tensor).Prepare()
			if err != nil {
				return nil, err
			}
			all = append(all, s...)
		}
		return all, nil
	}
	return g
}
