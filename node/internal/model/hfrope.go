package model

import (
	"fmt"
	"math"
)

// ropeKeys are where a family has its rotary settings.
type ropeKeys struct {
	theta, part string  // names of the settings; part "": heads are turned whole
	otherwise   float64 // which part of a head, where it is not said
	// su: the family calls longrope also su and yarn.
	su bool
}

// rope takes the rotary settings in the old and the new spelling.
func (s *settings) rope(c *Config, k ropeKeys) {
	theta := s.number("rope_theta", 10000)
	if k.theta != "" && s.has(k.theta) {
		other := s.number(k.theta, theta)
		if s.has("rope_theta") && other != theta {
			s.fail(fmt.Errorf("rope_theta is %v and %s is %v", theta, k.theta, other))
		}
		theta = other
	}
	part := 1.0
	if k.part != "" {
		part = k.otherwise
		for _, key := range []string{k.part, "partial_rotary_factor"} {
			if s.has(key) {
				part = s.number(key, part)
			}
		}
	}
	original := 0
	if k.su {
		original = s.integer("original_max_position_embeddings", 0)
	}
	c.Rope.Theta = theta
	for _, key := range []string{"rope_scaling", "rope_parameters"} {
		sub := s.object(key)
		if sub == nil {
			continue
		}
		c.Rope.Theta = sub.number("rope_theta", c.Rope.Theta)
		if k.part != "" {
			part = sub.number("partial_rotary_factor", part)
		} else {
			sub.must("partial_rotary_factor", 1.0)
		}
		c.Rope.Scaling = sub.scaling(c, k.su, original)
		sub.rest()
		if sub.err != nil {
			s.fail(sub.err)
		}
	}
	// As transformers does: towards zero.
	if dims := float64(c.HeadDim) * part; part != 1 && dims >= 0 && dims <= float64(c.HeadDim) {
		if c.Rope.Dims = int(dims); c.Rope.Dims < 2 {
			s.fail(fmt.Errorf("rotary embedding of %v of heads of %d", part, c.HeadDim))
		}
	} else if part != 1 {
		s.fail(fmt.Errorf("rotary embedding of %v of a head", part))
	}
}

// scaling takes the settings of a scaling; original is the context of the
// pretraining that the object around it gives, 0 if it does not.
func (s *settings) scaling(c *Config, su bool, original int) RopeScaling {
	kind := s.text("type", "default")
	kind = s.text("rope_type", kind)
	if su && (kind == "su" || kind == "yarn") {
		kind = "longrope"
	}
	r := RopeScaling{Kind: kind}
	switch kind {
	case "default":
		// What is said all the same changes nothing.
		s.ignore("factor", "original_max_position_embeddings")
		return RopeScaling{}
	case "linear", "dynamic":
		r.Factor = s.number("factor", 0)
	case "llama3":
		r.Factor = s.number("factor", 0)
		r.LowFreqFactor, r.HighFreqFactor = s.number("low_freq_factor", 0), s.number("high_freq_factor", 0)
		r.OriginalContext = s.integer("original_max_position_embeddings", 0)
	case "yarn":
		r.OriginalContext = s.integer("original_max_position_embeddings", c.Context)
		r.Factor = s.number("factor", float64(c.Context)/float64(max(1, r.OriginalContext)))
		r.BetaFast, r.BetaSlow = s.number("beta_fast", 32), s.number("beta_slow", 1)
		r.NoTruncate = !s.boolean("truncate", true)
		r.AttentionFactor = s.yarnAttention(r.Factor)
	case "longrope":
		r.OriginalContext = s.integer("original_max_position_embeddings", original)
		if original != 0 { // it comes first
			r.OriginalContext = original
		}
		if r.OriginalContext == 0 {
			r.OriginalContext = c.Context
		}
		s.take("short_factor", &r.ShortFactors)
		s.take("long_factor", &r.LongFactors)
		factor := float64(c.Context) / float64(max(1, r.OriginalContext))
		if given := s.number("factor", factor); math.Abs(given-factor) > 1e-6*factor {
			// Versions of transformers differ in which of the two counts.
			s.fail(fmt.Errorf("%w: %sfactor is %v, and contexts %d and %d have another ratio", ErrUnsupported, s.in, given, c.Context, r.OriginalContext))
		}
		otherwise := 1.0
		if factor > 1 && r.OriginalContext > 1 {
			otherwise = math.Sqrt(1 + math.Log(factor)/math.Log(float64(r.OriginalContext)))
		}
		r.AttentionFactor = s.number("attention_factor", otherwise)
	default:
		s.fail(fmt.Errorf("%w: %srope_type is %q", ErrUnsupported, s.in, kind))
	}
	return r
}

// yarnAttention takes yarn's attention factor, or what it is made from.
func (s *settings) yarnAttention(factor float64) float64 {
	scale := func(m float64) float64 {
		if factor <= 1 {
			return 1
		}
		return 0.1*m*math.Log(factor) + 1
	}
	otherwise := scale(1)
	if m, all := s.number("mscale", 0), s.number("mscale_all_dim", 0); m != 0 && all != 0 {
		otherwise = scale(m) / scale(all)
	}
	return s.number("attention_factor", otherwise)
}
