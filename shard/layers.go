package shard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/shard/safetensors"
)

// LayerSelection is what of a model some of its layers need.
type LayerSelection struct {
	// Leaves are the distinct leaves, in order.
	Leaves []cid.Cid
	Bytes  int64 // of them
	// Final says that these are all. Else they are what has to be here to tell
	// which others are needed: headers of weights.
	Final bool
}

// layerName finds the number of a layer in the name of a tensor, as the models
// of Hugging Face have it: model.layers.7.mlp.up_proj.weight, transformer.h.7.…
var layerName = regexp.MustCompile(`(?:^|\.)(?:layers|h|blocks|layer)\.(\d{1,6})\.`)

// SelectLayers tells which leaves of the model root, whose inner nodes are
// local, are needed for its layers first to last: those with tensors of these
// layers, or of none, such as embeddings, and all files that are no weights. It
// is to be called again with what it asks for local, until the answer is final.
func (s *Store) SelectLayers(ctx context.Context, root cid.Cid, first, last int) (LayerSelection, error) {
	sel, err := s.selectLayers(ctx, root, first, last)
	if err != nil {
		return LayerSelection{}, fmt.Errorf("layers %d to %d of %s: %w", first, last, root, incomplete(err))
	}
	return sel, nil
}

func (s *Store) selectLayers(ctx context.Context, root cid.Cid, first, last int) (LayerSelection, error) {
	if first < 0 || last < first {
		return LayerSelection{}, errors.New("no layers: the first is 0, and the last not before the first")
	}
	p := newPlan(maxDAGBytes)
	if err := p.add(ctx, s, root, ".", 1); err != nil {
		return LayerSelection{}, err
	}
	x := &selection{final: true, seen: make(map[cid.Cid]bool)}
	for _, f := range p.files {
		if err := x.file(ctx, s, f, first, last); err != nil {
			return LayerSelection{}, fmt.Errorf("%s: %w", f.path, err)
		}
	}
	if x.final && !x.layer {
		return LayerSelection{}, fmt.Errorf("%w: it has no such layers", ErrInvalid)
	}
	out := LayerSelection{Final: x.final}
	from := x.all
	if !x.final {
		from = x.headers
	}
	for _, l := range from {
		out.Leaves = append(out.Leaves, l.cid)
		out.Bytes += l.size
	}
	return out, nil
}

type sizedLeaf struct {
	cid  cid.Cid
	size int64
}

// selection collects leaves.
type selection struct {
	all     []sizedLeaf // what is needed
	headers []sizedLeaf // what has to be here first
	seen    map[cid.Cid]bool
	final   bool
	layer   bool // a tensor of these layers was met
}

// add adds the leaves of a file between two offsets.
func (x *selection) add(ctx context.Context, s *Store, f planned, from, to int64) error {
	if from >= to && f.size > 0 {
		return nil
	}
	leaf := func(c cid.Cid, size int64) {
		if !x.seen[c] {
			x.seen[c] = true
			x.all = append(x.all, sizedLeaf{c, size})
		}
	}
	if f.cid.Prefix().Codec == rawCodec {
		leaf(f.cid, f.size)
		return nil
	}
	file, err := s.OpenFile(ctx, f.cid)
	if err != nil {
		return err
	}
	for off := from; off < to; {
		n, i, begin, err := file.seek(off)
		if err != nil {
			return err
		}
		leaf(n.links[i].CID, int64(n.blockSizes[i]))
		off = begin + int64(n.blockSizes[i])
	}
	return nil
}

func (x *selection) file(ctx context.Context, s *Store, f planned, first, last int) error {
	if !strings.HasSuffix(f.path, weightsExt) {
		return x.add(ctx, s, f, 0, f.size)
	}
	h, err := x.header(ctx, s, f)
	if h == nil || err != nil {
		return err
	}
	if err := x.add(ctx, s, f, 0, h.DataStart); err != nil {
		return err
	}
	for _, t := range h.Tensors {
		if m := layerName.FindStringSubmatch(t.Name); m != nil {
			n, _ := strconv.Atoi(m[1]) // the pattern is right
			if n < first || n > last {
				continue
			}
			x.layer = true
		}
		if err := x.add(ctx, s, f, h.DataStart+t.Begin, h.DataStart+t.End); err != nil {
			return err
		}
	}
	return nil
}

// header reads the header of a file of weights. Without it being here, it adds
// what is lacking and returns nil.
func (x *selection) header(ctx context.Context, s *Store, f planned) (*safetensors.Header, error) {
	end := min(f.size, 8)
	file, err := s.OpenFile(ctx, f.cid)
	if err == nil {
		var h *safetensors.Header
		if h, err = safetensors.ReadHeader(file, f.size); err == nil {
			return h, nil
		}
		var size [8]byte
		if _, serr := file.ReadAt(size[:], 0); serr == nil {
			end = min(f.size, 8+int64(min(binary.LittleEndian.Uint64(size[:]), maxHeaderBytes)))
		}
	}
	if !errors.Is(err, ErrIncomplete) {
		return nil, err
	}
	if f.cid.Prefix().Codec != rawCodec {
		if missing, _ := s.Has(ctx, f.cid); !missing {
			return nil, err // an inner node is not here
		}
	}
	x.final = false
	before := len(x.all)
	err = x.add(ctx, s, f, 0, end)
	x.headers = append(x.headers, x.all[before:]...)
	return nil, err
}
