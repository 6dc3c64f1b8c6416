package shard

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sort"
	"strings"
)

// DatasetOptions say what [Store.ImportDataset] reads and makes.
type DatasetOptions struct {
	// Files hold the training rows: JSON (an array, or an object a line), .csv
	// and .tsv with the names of fields in the first line, or .txt, in which
	// empty lines separate rows.
	Files []string
	// Format is the form of the rows: alpaca, messages, sharegpt, completion
	// or text. Default: what the first row of each file shows.
	Format string
	// Fields name the fields of the files where they are not those of the form.
	Fields Fields
	// EvalFile holds the held-out rows, or is "".
	EvalFile string
	// EvalFraction is the share of rows to hold out, drawn by Seed, when
	// EvalFile is "". Rows with the same prompt go to the same side.
	EvalFraction float64
	// Seed of the draw and of Shuffle, at most 2^53-1.
	Seed uint64
	// Shuffle orders the training rows by Seed before they are cut into
	// shards, so that each shard is a fair sample. Choose it when the
	// file is sorted by subject. Default: the order of the file.
	Shuffle bool
	// ShardBytes bounds a shard of more than one row. Default 1 MiB, which
	// makes one shard one block; less gives a small data set enough shards
	// for all peers.
	ShardBytes int
	// DropInvalid leaves invalid rows out and counts them, instead of
	// refusing the file.
	DropInvalid bool
	Licence     string // SPDX name, or what the author says
	Source      string // where the rows come from, for people
	Template    string // prompt template, default that of the format
	// Progress, if not nil, is called from one goroutine; done never
	// decreases.
	Progress func(done, total int64)
}

// DatasetImport is what [Store.ImportDataset] made.
type DatasetImport struct {
	Import
	Index    DatasetIndex
	Detected Detected // what the first file was found to be
	Dropped  int      // rows left out by DropInvalid
	Rejected []Rejected
	Warnings []string // for people
}

// Rejected is one of the first rows that were left out.
type Rejected struct {
	Place string // such as "rows.jsonl:7"
	Why   string
}

const (
	maxRows       = 1 << 24 // of one data set
	maxRowErrors  = 10      // that one import lists
	minShardBytes = 256
	maxShardBytes = 8 << 20 // of the option; MaxShardBytes is what is accepted
)

// ImportDataset checks rows and stores them as a data set. The same rows and
// options give the same CID. A row that is both trained on and held out is an
// error that names both.
func (s *Store) ImportDataset(ctx context.Context, opts DatasetOptions) (DatasetImport, error) {
	imp, err := s.importDataset(ctx, opts)
	if err != nil {
		return DatasetImport{}, fmt.Errorf("import data set: %w", err)
	}
	return imp, nil
}

func (s *Store) importDataset(ctx context.Context, opts DatasetOptions) (DatasetImport, error) {
	if opts.ShardBytes == 0 {
		opts.ShardBytes = ChunkBytes
	}
	if err := opts.validate(); err != nil {
		return DatasetImport{}, err
	}
	in := &rowImport{opts: opts, others: make(map[string]bool)}
	// Rows wait on disk in their canonical form, so that a data set may be
	// larger than memory. The folder is emptied when the store is opened.
	spool, err := os.CreateTemp(s.path("tmp"), "rows-*")
	if err != nil {
		return DatasetImport{}, err
	}
	defer os.Remove(spool.Name())
	defer spool.Close()
	if err := in.read(ctx, spool); err != nil {
		return DatasetImport{}, err
	}
	train, eval := in.train, in.eval
	held := "none"
	switch {
	case opts.EvalFile != "":
		held = "file"
	case opts.EvalFraction > 0:
		held = "fraction"
		train, eval = holdOut(train, opts.EvalFraction, opts.Seed)
		if len(eval) == 0 || len(train) == 0 {
			return DatasetImport{}, fmt.Errorf("holding out %v of %d rows with %d different prompts leaves one side empty", opts.EvalFraction, len(in.train), prompts(in.train))
		}
	}
	if err := in.checkLeaks(train, eval); err != nil {
		return DatasetImport{}, err
	}
	if opts.Shuffle {
		shuffle(train, opts.Seed)
	}
	imp := DatasetImport{Detected: in.form, Dropped: in.dropped, Rejected: in.rejected, Warnings: in.warnings()}
	imp.Index = DatasetIndex{
		Format: in.form.Format, Template: cmp.Or(opts.Template, defaultTemplate(in.form.Format)), HeldOut: held, Seed: opts.Seed, Shuffled: opts.Shuffle,
		Licence: opts.Licence, Source: opts.Source,
	}
	return imp, in.build(ctx, s, spool, train, eval, &imp)
}

func (o *DatasetOptions) validate() error {
	switch {
	case len(o.Files) == 0:
		return errors.New("no file was given")
	case o.EvalFile != "" && o.EvalFraction != 0:
		return errors.New("give a file of held-out rows or a fraction, not both")
	case math.IsNaN(o.EvalFraction) || o.EvalFraction < 0 || o.EvalFraction >= 1:
		return fmt.Errorf("fraction of held-out rows is %v, must be at least 0 and below 1", o.EvalFraction)
	case o.ShardBytes < minShardBytes || o.ShardBytes > maxShardBytes:
		return fmt.Errorf("shard size is %d bytes, must be %d to %d", o.ShardBytes, minShardBytes, maxShardBytes)
	case o.Seed > maxJSONInt:
		return fmt.Errorf("seed is %d, must be at most %d", o.Seed, uint64(maxJSONInt))
	case o.Template != "" && !isWord(o.Template):
		return fmt.Errorf("template is %q, must be 1 to 64 of the characters a-z 0-9 . _ -", o.Template)
	case !validText(o.Licence, 256):
		return errors.New("licence must be UTF-8 of at most 256 bytes")
	case !validText(o.Source, 1024):
		return errors.New("source must be UTF-8 of at most 1024 bytes")
	}
	return nil
}

// rowMeta is what is kept in memory of a row.
type rowMeta struct {
	off    int64 // in the spool
	size   int32
	file   int32 // index into rowImport.files
	at     int32
	prompt [16]byte // hash of what the row is to answer
	whole  [16]byte // hash of all of it
}

// rowImport reads the rows of an import.
type rowImport struct {
	opts     DatasetOptions
	files    []rawRow // one per file, to say where a row is
	form     Detected // of the first file
	formOf   string
	train    []rowMeta
	eval     []rowMeta
	off      int64
	dropped  int
	others   map[string]bool // names of fields that are left out
	bad      []error
	rejected []Rejected
	shared   int // held-out rows whose prompt is also trained on
	total    int64
	done     int64
}

func (in *rowImport) read(ctx context.Context, spool *os.File) error {
	paths := in.opts.Files
	if in.opts.EvalFile != "" {
		paths = append(slices.Clone(paths), in.opts.EvalFile)
	}
	for _, p := range paths {
		fi, err := os.Stat(p)
		if err != nil {
			return err
		}
		if !fi.Mode().IsRegular() {
			return fmt.Errorf("%s: not a file", p)
		}
		in.total += fi.Size()
	}
	w := bufio.NewWriterSize(spool, 1<<20)
	for i, p := range paths {
		into := &in.train
		if i >= len(in.opts.Files) {
			into = &in.eval
		}
		if err := in.readFile(ctx, p, w, into); err != nil {
			return err
		}
	}
	if len(in.bad) > 0 {
		if in.dropped > len(in.bad) {
			in.bad = append(in.bad, fmt.Errorf("and %d more", in.dropped-len(in.bad)))
		}
		return &RowsError{in.dropped, in.bad}
	}
	return w.Flush()
}

// RowsError is the error for rows that cannot be trained on.
type RowsError struct {
	Rows  int
	First []error // and how many more there are
}

// Error implements error.
func (e *RowsError) Error() string {
	return fmt.Sprintf("%v: %d rows; correct them, or have invalid rows dropped:\n%v", ErrInvalid, e.Rows, errors.Join(e.First...))
}

// Unwrap returns ErrInvalid and what is wrong with the first rows.
func (e *RowsError) Unwrap() []error { return append([]error{ErrInvalid}, e.First...) }

func (in *rowImport) readFile(ctx context.Context, path string, w io.Writer, into *[]rowMeta) error {
	in.files = append(in.files, rawRow{})
	place := &in.files[len(in.files)-1]
	var line []byte
	found := 0
	o := InputOptions{Format: in.opts.Format, Fields: in.opts.Fields, Progress: in.progress}
	d, err := readInput(ctx, path, o, func(p parsedRow) error {
		*place = rawRow{file: p.file, array: p.array}
		found++
		if p.err == nil {
			if line = appendRow(line[:0], p.form.Format, p.row); len(line) > MaxRowBytes {
				p.err = fmt.Errorf("%w: row of %d bytes, at most %d are allowed", ErrTooLarge, len(line), MaxRowBytes)
			}
		}
		if p.err != nil {
			in.dropped++
			switch {
			case in.opts.DropInvalid && len(in.rejected) < maxRowErrors:
				in.rejected = append(in.rejected, Rejected{p.place(), p.err.Error()})
			case !in.opts.DropInvalid && len(in.bad) < maxRowErrors:
				in.bad = append(in.bad, fmt.Errorf("%s: %w", p.place(), p.err))
			}
			return nil
		}
		for _, name := range p.others {
			if len(in.others) < maxRowErrors {
				in.others[name] = true
			}
		}
		if len(in.train)+len(in.eval) >= maxRows {
			return fmt.Errorf("%s: %w: more than %d rows", p.place(), ErrTooLarge, maxRows)
		}
		m := rowMeta{off: in.off, size: int32(len(line)), file: int32(len(in.files) - 1), at: int32(p.at)}
		m.prompt, m.whole = p.row.hashes(p.form.Format)
		*into = append(*into, m)
		in.off += int64(len(line))
		_, err := w.Write(line)
		return err
	})
	if err != nil {
		return err
	}
	if found == 0 {
		return fmt.Errorf("%s: no rows", path)
	}
	if len(*into) == 0 && len(in.bad) == 0 {
		return fmt.Errorf("%s: no valid rows", path)
	}
	if in.form.Format == "" {
		in.form, in.formOf = d, place.file
	} else if d.Format != "" && d.Format != in.form.Format {
		return fmt.Errorf("%w: the rows of %s are %s and those of %s are %s; a data set has rows of one format", ErrInvalid, in.formOf, in.form.Format, place.file, d.Format)
	}
	return nil
}

// hashes are what tells prompts apart, and rows.
func (r Row) hashes(format string) (prompt, whole [16]byte) {
	switch format {
	case FormatText:
		whole = textHash(r.Output)
		return whole, whole
	case FormatAlpaca, FormatCompletion:
		return textHash(r.Instruction, r.Input), textHash(r.Instruction, r.Input, r.Output)
	}
	var texts []string
	for _, m := range r.Messages {
		if m.Role == "assistant" && prompt == [16]byte{} {
			prompt = textHash(texts...)
		}
		texts = append(texts, m.Role, m.Content)
	}
	return prompt, textHash(texts...)
}

// progress counts reading as the first half of the work.
func (in *rowImport) progress(n int) {
	in.done += int64(n)
	if in.opts.Progress != nil {
		in.opts.Progress(min(in.done, in.total), 2*in.total)
	}
}

// textHash tells texts apart by what is in them, not by their white space.
func textHash(texts ...string) [16]byte {
	h := sha256.New()
	for _, t := range texts {
		t = normal(t)
		_ = binary.Write(h, binary.LittleEndian, uint64(len(t)))
		_, _ = io.WriteString(h, t)
	}
	return [16]byte(h.Sum(nil))
}

func prompts(rows []rowMeta) int {
	seen := make(map[[16]byte]bool)
	for _, r := range rows {
		seen[r.prompt] = true
	}
	return len(seen)
}

// drawHash orders things by seed: a hash of the purpose, the seed and the thing.
func drawHash(purpose string, seed uint64, thing []byte) [32]byte {
	b := append([]byte("moot data set "+purpose+"\n"), binary.BigEndian.AppendUint64(nil, seed)...)
	return sha256.Sum256(append(b, thing...))
}

// holdOut splits rows so that the second part has as near to the fraction of
// rows as whole prompts allow: prompts in order of a hash of the seed, until
// there are enough. The order of rows stays.
func holdOut(rows []rowMeta, fraction float64, seed uint64) (train, eval []rowMeta) {
	count := make(map[[16]byte]int)
	for _, r := range rows {
		count[r.prompt]++
	}
	type draw struct {
		hash   [32]byte
		prompt [16]byte
	}
	draws := make([]draw, 0, len(count))
	for p := range count {
		draws = append(draws, draw{drawHash("held-out", seed, p[:]), p})
	}
	sort.Slice(draws, func(i, j int) bool { return string(draws[i].hash[:]) < string(draws[j].hash[:]) })
	want := max(1, int(math.Round(fraction*float64(len(rows)))))
	out := make(map[[16]byte]bool)
	for _, d := range draws {
		if want <= 0 {
			break
		}
		out[d.prompt] = true
		want -= count[d.prompt]
	}
	for _, r := range rows {
		if out[r.prompt] {
			eval = append(eval, r)
		} else {
			train = append(train, r)
		}
	}
	return train, eval
}

// shuffle orders rows by a hash of the seed, what is in the row and, for
// equal ones, where it was.
func shuffle(rows []rowMeta, seed uint64) {
	type draw struct {
		hash [32]byte
		row  rowMeta
	}
	draws := make([]draw, len(rows))
	for i, r := range rows {
		draws[i] = draw{drawHash("order", seed, binary.BigEndian.AppendUint64(r.whole[:], uint64(i))), r}
	}
	sort.Slice(draws, func(i, j int) bool { return string(draws[i].hash[:]) < string(draws[j].hash[:]) })
	for i, d := range draws {
		rows[i] = d.row
	}
}

// checkLeaks refuses held-out rows that are trained on, and counts those that
// share their prompt with a training row.
func (in *rowImport) checkLeaks(train, eval []rowMeta) error {
	if len(eval) == 0 {
		return nil
	}
	whole := make(map[[16]byte]rowMeta, len(train))
	prompt := make(map[[16]byte]bool, len(train))
	for _, r := range train {
		if _, dup := whole[r.whole]; !dup {
			whole[r.whole] = r
		}
		prompt[r.prompt] = true
	}
	var leaks []error
	n := 0
	for _, r := range eval {
		if t, ok := whole[r.whole]; ok {
			if n++; n <= maxRowErrors {
				leaks = append(leaks, fmt.Errorf("%s is the same as %s", in.place(r), in.place(t)))
			}
		} else if prompt[r.prompt] {
			in.shared++
		}
	}
	if n == 0 {
		return nil
	}
	if n > maxRowErrors {
		leaks = append(leaks, fmt.Errorf("and %d more", n-maxRowErrors))
	}
	return fmt.Errorf("%w: %d held-out rows are also training rows, so the evaluation would measure memory; remove them on one side:\n%w", ErrInvalid, n, errors.Join(leaks...))
}

func (in *rowImport) place(r rowMeta) string {
	p := in.files[r.file]
	p.at = int(r.at)
	return p.place()
}

func (in *rowImport) warnings() []string {
	var out []string
	if in.dropped > 0 {
		out = append(out, fmt.Sprintf("%d invalid rows were left out", in.dropped))
	}
	if len(in.others) > 0 {
		names := make([]string, 0, len(in.others))
		for name := range in.others {
			names = append(names, fmt.Sprintf("%.40q", name))
		}
		sort.Strings(names)
		out = append(out, fmt.Sprintf("fields other than %s were left out: %s", fieldsOf(in.form.Input), strings.Join(names, ", ")))
	}
	seen := make(map[[16]byte]bool, len(in.train))
	dups := 0
	for _, r := range in.train {
		if seen[r.whole] {
			dups++
		}
		seen[r.whole] = true
	}
	if dups > 0 {
		out = append(out, fmt.Sprintf("%d training rows repeat another one", dups))
	}
	if in.shared > 0 {
		out = append(out, fmt.Sprintf("%d held-out rows have the prompt of a training row, with another output", in.shared))
	}
	return out
}

// build stores the folder of the data set.
func (in *rowImport) build(ctx context.Context, s *Store, spool io.ReaderAt, train, eval []rowMeta, imp *DatasetImport) error {
	b := newBuilder(ctx, s)
	defer b.close()
	parts := []*partBuild{
		{name: "train", rows: train, index: &imp.Index.Train},
		{name: "eval", rows: eval, index: &imp.Index.Eval},
	}
	var err error
	for i, p := range parts {
		if i > 0 {
			p.before = parts[i-1].index.Bytes
		}
		if err = in.buildPart(b, spool, p); err != nil {
			break
		}
	}
	if waitErr := b.wait(); waitErr != nil {
		return waitErr // it made the other one, if there is one
	}
	if err != nil {
		return err
	}
	root := make(map[string]*ref)
	for _, p := range parts {
		if len(p.leaves) == 0 {
			continue
		}
		files := make(map[string]*ref, len(p.leaves))
		for i, leaves := range p.leaves {
			f, err := b.file(leaves)
			if err != nil {
				return err
			}
			files[strings.TrimPrefix(shardName(p.name, i), p.name+"/")] = f
		}
		if root[p.name], err = b.folder(files); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		imp.Files += len(files)
		imp.Bytes += p.index.Bytes
	}
	if err := imp.Index.Validate(); err != nil {
		return err
	}
	raw := imp.Index.encode()
	if len(raw) > maxDatasetJSON {
		return fmt.Errorf("%s: %w: %d bytes, at most %d are allowed", datasetFile, ErrTooLarge, len(raw), maxDatasetJSON)
	}
	c, err := b.now(rawCodec, raw)
	if err != nil {
		return err
	}
	root[datasetFile] = &ref{cid: c, size: uint64(len(raw)), fileSize: uint64(len(raw)), height: 1}
	r, err := b.folder(root)
	if err != nil {
		return err
	}
	if err := b.finish(); err != nil {
		return err
	}
	imp.Root, imp.Blocks = r.cid, len(b.blocks)
	imp.Files++
	imp.Bytes += int64(len(raw))
	if in.opts.Progress != nil {
		in.opts.Progress(2*in.total, 2*in.total)
	}
	return nil
}

// partBuild is the training or the held-out part while it is stored.
type partBuild struct {
	name   string
	rows   []rowMeta
	index  *DatasetPart
	before int64    // bytes of the parts before it
	leaves [][]*ref // of each shard
}

// buildPart cuts rows into shards: as many as fit into ShardBytes, at least one.
func (in *rowImport) buildPart(b *builder, spool io.ReaderAt, p *partBuild) error {
	var data []byte
	rows := 0
	written := p.before
	flush := func() error {
		if rows == 0 {
			return nil
		}
		i := len(p.leaves)
		if i >= maxDatasetShards {
			return fmt.Errorf("%s: %w: more than %d shards; make them larger than %d bytes each", p.name, ErrTooLarge, maxDatasetShards, in.opts.ShardBytes)
		}
		p.index.Shards = append(p.index.Shards, DatasetShard{Name: shardName(p.name, i), Rows: int64(rows), Bytes: int64(len(data))})
		p.index.Rows += int64(rows)
		p.index.Bytes += int64(len(data))
		var leaves []*ref
		for rest := data; len(rest) > 0; {
			part := rest[:min(len(rest), ChunkBytes)]
			rest = rest[len(part):]
			leaves = append(leaves, b.leaf(part, false))
		}
		p.leaves = append(p.leaves, leaves)
		written += int64(len(data))
		if in.opts.Progress != nil { // the second half of the work
			in.opts.Progress(in.total+written*in.total/in.off, 2*in.total)
		}
		data, rows = nil, 0 // the leaves keep the old bytes
		return nil
	}
	for _, r := range p.rows {
		if err := b.w.ctx.Err(); err != nil {
			return err
		}
		if rows > 0 && len(data)+int(r.size) > in.opts.ShardBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		n := len(data)
		data = slices.Grow(data, int(r.size))[:n+int(r.size)]
		if _, err := spool.ReadAt(data[n:], r.off); err != nil {
			return fmt.Errorf("read back row: %w", err)
		}
		rows++
	}
	return flush()
}
