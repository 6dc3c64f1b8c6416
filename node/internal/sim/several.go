package sim

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
)

// RunSeeds runs a scenario with several seeds. done, if not nil, is given the
// result of each. What comes back has the means, which keep the limits of what
// scatters; all other limits hold for each seed.
func (s Scenario) RunSeeds(ctx context.Context, o Options, seeds []uint64, done func(Result) error) (sum Result, err error) {
	if o.Lab == nil {
		o.Lab = new(Lab)
		defer func() { err = errors.Join(err, o.Lab.Close()) }()
	}
	var list []Result
	for _, seed := range seeds {
		o.Seed = seed
		r, err := s.Run(ctx, o)
		if err != nil {
			return Result{}, err
		}
		if done != nil {
			if err := done(r); err != nil {
				return Result{}, err
			}
		}
		list = append(list, r)
	}
	return together(list), nil
}

// together is what results of one scenario come to.
func together(list []Result) Result {
	first := list[0]
	sum := Result{
		Scenario: first.Scenario, Seed: first.Seed, Quick: first.Quick, Figures: make(map[string]Figure), Limits: make(map[string]Limit),
		Each: make(map[string][]Figure), Deviation: make(map[string]Figure),
	}
	var causes []string
	for i, r := range list {
		sum.Seeds = append(sum.Seeds, r.Seed)
		sum.Transcript = combined(sum.Transcript, r.Transcript)
		sum.WallS += r.WallS
		maps.Copy(sum.Limits, r.Limits)
		for name, f := range r.Figures {
			if sum.Each[name] == nil {
				sum.Each[name] = make([]Figure, len(list))
				for k := range sum.Each[name] {
					sum.Each[name][k] = Figure(math.NaN())
				}
			}
			sum.Each[name][i] = f
		}
		if r.Cause != "" && !slices.Contains(causes, r.Cause) {
			causes = append(causes, r.Cause)
		}
	}
	for name, each := range sum.Each {
		mean, deviation := spread(each)
		sum.Figures[name] = Figure(mean)
		if len(each) > 1 {
			sum.Deviation[name] = Figure(deviation)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sum.Limits)) {
		l := sum.Limits[name]
		outside := func(f Figure) bool { return !l.holds(f) }
		if l.OfMean && outside(sum.Figures[name]) || !l.OfMean && slices.ContainsFunc(sum.Each[name], outside) {
			sum.Missed = append(sum.Missed, name)
		}
	}
	sum.Pass = len(sum.Missed) == 0
	if !sum.Pass {
		sum.Cause = strings.Join(causes, "; ")
	}
	return sum
}

// spread is the mean and the standard deviation of a sample.
func spread(each []Figure) (mean, deviation float64) {
	n := float64(len(each))
	for _, f := range each {
		mean += float64(f) / n
	}
	for _, f := range each {
		deviation += (float64(f) - mean) * (float64(f) - mean) / (n - 1)
	}
	return mean, math.Sqrt(deviation)
}
