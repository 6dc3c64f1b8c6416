package shard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	datasetSchema    = 1
	datasetFile      = "dataset.json"
	maxDatasetJSON   = 1 << 20
	maxDatasetShards = 4096
	maxJSONInt       = 1<<53 - 1 // what every JSON reader holds exactly
)

// MaxShardBytes is the largest file of rows.
const MaxShardBytes = 16 << 20

// DatasetIndex is dataset.json: what is in a data set.
type DatasetIndex struct {
	Format   string // of the rows: FormatAlpaca and so on
	Template string // name of the prompt template
	HeldOut  string // how Eval came about: "none", "file" or "fraction"
	Seed     uint64 // of the draw, and of the order if Shuffled
	Shuffled bool
	Licence  string
	Source   string
	Train    DatasetPart
	Eval     DatasetPart
}

// DatasetPart is the training or the held-out part of a data set.
type DatasetPart struct {
	Rows   int64
	Bytes  int64
	Shards []DatasetShard
}

// DatasetShard is one file of rows.
type DatasetShard struct {
	Name  string // below the data set, such as "train/00000.jsonl"
	Rows  int64
	Bytes int64
}

// shardName is the name of shard i of a part.
func shardName(part string, i int) string { return fmt.Sprintf("%s/%05d.jsonl", part, i) }

// Validate reports which rule of FORMAT.md the index breaks.
func (x *DatasetIndex) Validate() error {
	_, known := canonicalFormat(x.Format)
	switch {
	case x.Format == FormatShareGPT || !known:
		return fmt.Errorf("format %q, this program knows alpaca, messages, completion and text", x.Format)
	case !isWord(x.Template):
		return fmt.Errorf("template %q, must be 1 to 64 of the characters a-z 0-9 . _ -", x.Template)
	case !validText(x.Licence, 256):
		return errors.New("licence is not UTF-8 of at most 256 bytes")
	case !validText(x.Source, 1024):
		return errors.New("source is not UTF-8 of at most 1024 bytes")
	case x.Seed > maxJSONInt:
		return fmt.Errorf("seed %d, at most %d is allowed", x.Seed, uint64(maxJSONInt))
	case x.HeldOut != "none" && x.HeldOut != "file" && x.HeldOut != "fraction":
		return fmt.Errorf("held_out %q, must be none, file or fraction", x.HeldOut)
	case (x.HeldOut == "none") != (x.Eval.Rows == 0):
		return fmt.Errorf("held_out %q and %d held-out rows", x.HeldOut, x.Eval.Rows)
	case x.Train.Rows == 0:
		return errors.New("no training rows")
	}
	if err := x.Train.validate("train"); err != nil {
		return err
	}
	return x.Eval.validate("eval")
}

// isWord reports whether s can stand in a file name and on a command line.
func isWord(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}

func (p *DatasetPart) validate(name string) error {
	if len(p.Shards) > maxDatasetShards {
		return fmt.Errorf("%s: %d shards, at most %d are allowed", name, len(p.Shards), maxDatasetShards)
	}
	var rows, size int64
	for i, s := range p.Shards {
		switch {
		case s.Name != shardName(name, i):
			return fmt.Errorf("%s: shard %d has the name %q", name, i, s.Name)
		case s.Bytes < 1 || s.Bytes > MaxShardBytes:
			return fmt.Errorf("%s: %d bytes, must be 1 to %d", s.Name, s.Bytes, MaxShardBytes)
		case s.Rows < 1 || s.Rows > s.Bytes:
			return fmt.Errorf("%s: %d rows in %d bytes", s.Name, s.Rows, s.Bytes)
		}
		rows += s.Rows
		size += s.Bytes
	}
	if rows != p.Rows || size != p.Bytes {
		return fmt.Errorf("%s: %d rows and %d bytes, the shards have %d and %d", name, p.Rows, p.Bytes, rows, size)
	}
	return nil
}

// encode writes the index in its one accepted form: RFC 8785 and a line feed.
func (x *DatasetIndex) encode() []byte {
	b := []byte(`{"eval":`)
	b = x.Eval.append(b)
	b = appendField(b, "format", x.Format)
	b = appendField(b, "held_out", x.HeldOut)
	b = appendField(b, "licence", x.Licence)
	b = append(b, `,"schema":`...)
	b = strconv.AppendInt(b, datasetSchema, 10)
	b = append(b, `,"seed":`...)
	b = strconv.AppendUint(b, x.Seed, 10)
	b = append(b, `,"shuffled":`...)
	b = strconv.AppendBool(b, x.Shuffled)
	b = appendField(b, "source", x.Source)
	b = appendField(b, "template", x.Template)
	b = append(b, `,"train":`...)
	b = x.Train.append(b)
	return append(b, '}', '\n')
}

func appendField(b []byte, key, value string) []byte {
	b = append(b, ',', '"')
	b = append(b, key...)
	b = append(b, '"', ':')
	return appendJSONString(b, value)
}

func (p *DatasetPart) append(b []byte) []byte {
	b = append(b, `{"bytes":`...)
	b = strconv.AppendInt(b, p.Bytes, 10)
	b = append(b, `,"rows":`...)
	b = strconv.AppendInt(b, p.Rows, 10)
	b = append(b, `,"shards":[`...)
	for i, s := range p.Shards {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"bytes":`...)
		b = strconv.AppendInt(b, s.Bytes, 10)
		b = append(b, `,"name":`...)
		b = appendJSONString(b, s.Name)
		b = append(b, `,"rows":`...)
		b = strconv.AppendInt(b, s.Rows, 10)
		b = append(b, '}')
	}
	return append(b, ']', '}')
}

// decodeDatasetIndex is the inverse of encode: it accepts nothing else.
func decodeDatasetIndex(b []byte) (*DatasetIndex, error) {
	if len(b) > maxDatasetJSON {
		return nil, fmt.Errorf("%s: %w: %d bytes, at most %d are allowed", datasetFile, ErrTooLarge, len(b), maxDatasetJSON)
	}
	// The schema first, so that a newer one is called that and not broken.
	var schema struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(b, &schema); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", datasetFile, ErrInvalid, syntax(err))
	}
	if schema.Schema != datasetSchema {
		return nil, fmt.Errorf("%s: %w: schema %d, this program knows %d", datasetFile, ErrInvalid, schema.Schema, datasetSchema)
	}
	var wire struct {
		Eval     DatasetPart `json:"eval"`
		Format   string      `json:"format"`
		HeldOut  string      `json:"held_out"`
		Licence  string      `json:"licence"`
		Seed     uint64      `json:"seed"`
		Shuffled bool        `json:"shuffled"`
		Source   string      `json:"source"`
		Template string      `json:"template"`
		Train    DatasetPart `json:"train"`
	}
	if err := json.Unmarshal(b, &wire); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", datasetFile, ErrInvalid, syntax(err))
	}
	x := &DatasetIndex{
		Format: wire.Format, Template: wire.Template, HeldOut: wire.HeldOut, Seed: wire.Seed, Shuffled: wire.Shuffled,
		Licence: wire.Licence, Source: wire.Source, Train: wire.Train, Eval: wire.Eval,
	}
	if len(x.Eval.Shards) == 0 {
		x.Eval.Shards = nil // as ImportDataset leaves it
	}
	if err := x.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", datasetFile, ErrInvalid, err)
	}
	if !bytes.Equal(x.encode(), b) {
		return nil, fmt.Errorf("%s: %w: not in canonical form", datasetFile, ErrInvalid)
	}
	return x, nil
}
