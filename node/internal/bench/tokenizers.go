package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moot-net/moot/node/internal/tokenizer"
)

// measureTokenizers encodes the texts of the reference results. The figure
// reported is the slowest one.
func measureTokenizers(ctx context.Context, o *options, result figures) error {
	dirs, err := filepath.Glob(filepath.Join(o.golden, "tokenizers", "*", "golden_tokenizer_json.json"))
	if err != nil {
		return err
	}
	if len(dirs) == 0 {
		fmt.Printf("tokenizers: none in %s (set MOOT_GOLDEN)\n\n", o.golden)
		return nil
	}
	fmt.Println("tokenizers on the texts of their reference results, one thread: MB per second of processor time, median")
	slowest := 0.0
	for _, path := range dirs {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := filepath.Base(filepath.Dir(path))
		text, err := goldenText(path)
		if err != nil {
			return err
		}
		tok, err := tokenizer.Load(filepath.Dir(path))
		if err != nil {
			return err
		}
		speed := encodeSpeed(tok, text)
		fmt.Printf("%-16s %8.1f\n", name, speed)
		if slowest == 0 || speed < slowest {
			slowest = speed
		}
	}
	fmt.Println()
	result.set("tokenizer_mb_per_s", slowest)
	return nil
}

// encodeSpeed is by processor time, where that is known, because there is no peer
// whom others on the machine would slow down as much.
func encodeSpeed(tok *tokenizer.Tokenizer, text string) float64 {
	var ids []int32
	var speeds []float64
	for range 9 {
		start, used, bytes := time.Now(), processorSeconds(), 0
		for time.Since(start) < 50*time.Millisecond {
			ids = tok.AppendEncode(ids[:0], text, tokenizer.EncodeOptions{})
			bytes += len(text)
		}
		took := time.Since(start).Seconds()
		if used = processorSeconds() - used; used > 0 {
			took = used
		}
		speeds = append(speeds, float64(bytes)/1e6/took)
	}
	return median(speeds)
}

func goldenText(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var g struct {
		Encode []struct {
			Text string `json:"text"`
		} `json:"encode"`
	}
	if err := json.Unmarshal(raw, &g); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	var text strings.Builder
	for _, e := range g.Encode {
		text.WriteString(e.Text)
		text.WriteByte('\n')
	}
	if text.Len() < 100 {
		return "", fmt.Errorf("%s: no texts: %w", path, errors.Join(fs.ErrInvalid))
	}
	return text.String(), nil
}
