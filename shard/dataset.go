package shard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/ipfs/go-cid"
)

// Dataset reads a data set from a store. Nothing but its directories and
// dataset.json need be local to open it, and nothing but a shard to read that.
type Dataset struct {
	// constant after OpenDataset
	s     *Store
	root  cid.Cid
	index DatasetIndex
	train []cid.Cid
	eval  []cid.Cid
}

// OpenDataset opens the data set root and checks that dataset.json says what
// its folders hold.
func OpenDataset(ctx context.Context, s *Store, root cid.Cid) (*Dataset, error) {
	d := &Dataset{s: s, root: root}
	if err := d.open(ctx); err != nil {
		return nil, fmt.Errorf("open data set %s: %w", root, incomplete(err))
	}
	return d, nil
}

func (d *Dataset) open(ctx context.Context) error {
	entries, err := d.s.readDir(ctx, d.root)
	if err != nil {
		return err
	}
	byName := make(map[string]Entry, len(entries))
	for _, e := range entries {
		byName[e.Name] = e
	}
	file, ok := byName[datasetFile]
	if !ok || file.Dir {
		return fmt.Errorf("%w: no %s: not a data set", ErrInvalid, datasetFile)
	}
	raw, err := d.s.ReadBytes(ctx, file.CID, maxDatasetJSON)
	if err != nil {
		return err
	}
	x, err := decodeDatasetIndex(raw)
	if err != nil {
		return err
	}
	d.index = *x
	delete(byName, datasetFile)
	for _, part := range []struct {
		name string
		part *DatasetPart
		cids *[]cid.Cid
	}{{"train", &d.index.Train, &d.train}, {"eval", &d.index.Eval, &d.eval}} {
		e, ok := byName[part.name]
		delete(byName, part.name)
		if !ok && len(part.part.Shards) == 0 {
			continue
		}
		if !e.Dir {
			return fmt.Errorf("%w: no folder %s", ErrInvalid, part.name)
		}
		if *part.cids, err = d.openPart(ctx, e.CID, part.name, part.part); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	for name := range byName {
		return fmt.Errorf("%w: %q does not belong there", ErrInvalid, name)
	}
	return nil
}

// openPart finds the shards of a part; ReadDir sorts as shardName counts.
func (d *Dataset) openPart(ctx context.Context, c cid.Cid, name string, part *DatasetPart) ([]cid.Cid, error) {
	entries, err := d.s.readDir(ctx, c)
	if err != nil {
		return nil, err
	}
	if len(entries) != len(part.Shards) || len(entries) == 0 {
		return nil, fmt.Errorf("%w: %d files, %s names %d", ErrInvalid, len(entries), datasetFile, len(part.Shards))
	}
	cids := make([]cid.Cid, len(entries))
	for i, e := range entries {
		s := part.Shards[i]
		if e.Dir || name+"/"+e.Name != s.Name || e.Size != s.Bytes {
			return nil, fmt.Errorf("%w: %s of %d bytes, %s says %s of %d", ErrInvalid, e.Name, e.Size, datasetFile, s.Name, s.Bytes)
		}
		cids[i] = e.CID
	}
	return cids, nil
}

// Root is the CID of the data set.
func (d *Dataset) Root() cid.Cid { return d.root }

// Index is what dataset.json says. Its slices must not be changed.
func (d *Dataset) Index() DatasetIndex { return d.index }

// TrainShards are the CIDs of the training shards, in order. The slice must
// not be changed.
func (d *Dataset) TrainShards() []cid.Cid { return d.train }

// EvalShards are the CIDs of the held-out shards, in order. The slice must not
// be changed.
func (d *Dataset) EvalShards() []cid.Cid { return d.eval }

// ReadShard reads and checks training shard i, 0 <= i < len(TrainShards()).
// One that is not local gives an error that wraps [ErrIncomplete].
func (d *Dataset) ReadShard(ctx context.Context, i int) ([]Row, error) {
	return d.readShard(ctx, d.index.Train.Shards, d.train, i)
}

// ReadEval reads and checks held-out shard i, 0 <= i < len(EvalShards()).
func (d *Dataset) ReadEval(ctx context.Context, i int) ([]Row, error) {
	return d.readShard(ctx, d.index.Eval.Shards, d.eval, i)
}

func (d *Dataset) readShard(ctx context.Context, shards []DatasetShard, cids []cid.Cid, i int) ([]Row, error) {
	if i < 0 || i >= len(cids) {
		return nil, fmt.Errorf("read shard %d of data set %s: %w: there are %d", i, d.root, fs.ErrNotExist, len(cids))
	}
	rows, err := d.shardRows(ctx, shards[i], cids[i])
	if err != nil {
		return nil, fmt.Errorf("read %s of data set %s: %w", shards[i].Name, d.root, err)
	}
	return rows, nil
}

func (d *Dataset) shardRows(ctx context.Context, s DatasetShard, c cid.Cid) ([]Row, error) {
	raw, err := d.s.ReadBytes(ctx, c, s.Bytes)
	if err != nil {
		return nil, err
	}
	return parseShard(d.index.Format, raw, s.Rows)
}

// parseShard reads a file of rows.
func parseShard(format string, raw []byte, want int64) ([]Row, error) {
	if n := int64(bytes.Count(raw, []byte{'\n'})); n != want || !bytes.HasSuffix(raw, []byte{'\n'}) {
		return nil, fmt.Errorf("%w: %d lines, %s says %d rows", ErrInvalid, n, datasetFile, want)
	}
	rows := make([]Row, 0, want)
	for len(raw) > 0 {
		end := bytes.IndexByte(raw, '\n') + 1
		r, err := parseRowLine(format, raw[:end])
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", len(rows)+1, err)
		}
		rows = append(rows, r)
		raw = raw[end:]
	}
	return rows, nil
}

// Verify reads all shards that are in the index; all must be local.
func (d *Dataset) Verify(ctx context.Context) error {
	var errs []error
	for i := range d.train {
		if _, err := d.ReadShard(ctx, i); err != nil {
			errs = append(errs, err)
		}
	}
	for i := range d.eval {
		if _, err := d.ReadEval(ctx, i); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// normal is the text by which two rows count as the same: white space does
// not matter.
func normal(s string) string { return strings.Join(strings.Fields(s), " ") }
