package app

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// fitting says what a fit is made with.
type fitting struct {
	id       cid.Cid   // of the run, undefined before it is launched
	from     []peer.ID // who may have the model's configuration
	linkMbit float64   // 0: the limits in the configuration
}

// configPatience is how long a peer is looked for that has the configuration of
// a model that is not here. Without it, less can be said.
const configPatience = 20 * time.Second

// fit says what a run needs of this machine. Of a model that is not here it
// pulls the directory and config.json, and nothing else.
func (n *node) fit(ctx context.Context, m *run.Manifest, o fitting) (*api.Fit, error) {
	facts, err := n.modelFacts(ctx, m, o)
	if err != nil {
		return nil, err
	}
	f := &api.Fit{
		Name: m.Name, Launcher: m.Launcher.String(), Model: m.Model.String(), ModelBytes: int64(m.ModelBytes), ModelLicence: m.Licences.Model, ModelSource: m.Licences.ModelSource,
		Dataset: m.Dataset.String(), DatasetBytes: int64(m.DatasetBytes), DataLicence: m.Licences.Data, DataSource: m.Licences.DataSource, Use: m.Licences.Use.String(),
		Device: n.device, Verdict: api.VerdictFits,
	}
	if o.id.Defined() {
		f.Run = o.id.String()
	}
	memory, err := n.fitMemory(m, facts)
	if err != nil {
		return nil, err
	}
	layout, err := m.Layout()
	if err != nil {
		return nil, err
	}
	missing, disk, err := n.fitDisk(ctx, m, layout)
	if err != nil {
		return nil, err
	}
	f.MissingBytes = missing
	// The order is that in which a run is refused: what cannot be helped first.
	f.Items = append(f.Items, memory...)
	f.Items = append(f.Items, disk, n.fitTraffic(m, layout, o.linkMbit), fitLicence(m), n.fitAdmission(m, o.id))
	for _, i := range f.Items {
		if i.Name == "traffic" && i.Verdict == api.VerdictUnknown {
			continue // nobody said how fast the link is; that leaves the rest as it is
		}
		f.Verdict = api.Worst(f.Verdict, i.Verdict)
	}
	return f, nil
}

// verdict compares what is needed with what is there, -1 if that is not known.
func verdict(need, have int64) api.Verdict {
	switch {
	case have < 0:
		return api.VerdictUnknown
	case need > have:
		return api.VerdictExceeds
	case need > have/4*3:
		return api.VerdictTight
	}
	return api.VerdictFits
}

// checkpointBytes is what the two checkpoints of a trainer take, each with the
// values and the optimizer's state.
func checkpointBytes(m *run.Manifest, l *fold.Layout) int64 {
	each := int64(12) // float32: the value, and two moments
	switch m.Inner.Optimizer {
	case run.OptimizerAdamW8bit:
		each = 7 // moments of eight bits, their scales, and small tensors as they are
	case run.OptimizerSGD:
		each = 8
	}
	return 2 * each * int64(l.Params())
}

// diskParts is what a run takes of disk besides what is here, and how much of
// that are model and data.
func (n *node) diskParts(ctx context.Context, m *run.Manifest, l *fold.Layout) (parts []api.FitPart, pulled int64, err error) {
	for _, p := range []struct {
		name  string
		root  cid.Cid
		bytes uint64
	}{{"model", m.Model, m.ModelBytes}, {"data", m.Dataset, m.DatasetBytes}} {
		missing, have, _, err := n.store.Missing(ctx, p.root)
		if err != nil {
			return nil, 0, fmt.Errorf("check what is here of %s: %w", p.root, err)
		}
		need := max(int64(p.bytes)-have, 0)
		if have > 0 && len(missing) == 0 {
			need = 0 // a copy in a folder of the user's is none of ours
		}
		pulled += need
		parts = append(parts, api.FitPart{Name: p.name, Bytes: need})
	}
	return append(parts,
		api.FitPart{Name: "rounds", Bytes: runner.KeptBytes(l, m)},
		api.FitPart{Name: "checkpoints", Bytes: checkpointBytes(m, l)}), pulled, nil
}

// fitDisk also returns how much of model and data is missing here.
func (n *node) fitDisk(ctx context.Context, m *run.Manifest, l *fold.Layout) (int64, api.FitItem, error) {
	i := api.FitItem{Name: "disk"}
	parts, sum, err := n.diskParts(ctx, m, l)
	if err != nil {
		return 0, i, err
	}
	i.Parts = parts
	for _, p := range i.Parts {
		i.NeedBytes += p.Bytes
	}
	i.Text = fmt.Sprintf("the run takes %s of disk (%s)", megabytes(i.NeedBytes), partsText(i.Parts))
	have, known, err := n.available(ctx)
	if err != nil {
		return 0, i, err
	}
	if !known {
		i.HaveBytes, i.Verdict = -1, api.VerdictUnknown
		return sum, i, nil
	}
	i.HaveBytes = max(have, 0)
	i.Verdict = verdict(i.NeedBytes, i.HaveBytes)
	i.Text += fmt.Sprintf(", %s are free for it", megabytes(i.HaveBytes))
	if i.Verdict == api.VerdictExceeds {
		if keep := n.minFree.Load(); keep > 0 {
			i.Text += fmt.Sprintf(" besides the %s that stay free (min_free_mb)", megabytes(keep))
		}
		i.Code, i.Way = api.CodeDisk, n.diskWay(i.NeedBytes-have)
	}
	return sum, i, nil
}

// available is how many bytes the node may still write, after it removed what
// it may remove: less than none where less is free than shall stay free. It may
// not be known.
func (n *node) available(ctx context.Context) (have int64, known bool, err error) {
	free, err := freeBytes(n.dir)
	return n.availableOf(ctx, free, err == nil)
}

// availableOf is available with so much free on the disk, if that is known.
func (n *node) availableOf(ctx context.Context, free int64, sure bool) (have int64, known bool, err error) {
	inUse, err := n.inUse()
	if err != nil {
		return 0, false, err
	}
	// What could be removed for as much as there can be.
	p, err := n.store.Prune(ctx, shard.PruneOptions{Bytes: 1 << 62, Keep: inUse, DryRun: true})
	if err != nil {
		return 0, false, err
	}
	if sure {
		have, known = free-n.minFree.Load()+p.Bytes, true
	}
	if most := n.maxBytes.Load(); most > 0 {
		_, used, err := n.store.Usage(ctx)
		if err != nil {
			return 0, false, err
		}
		under := most - used + p.Bytes
		if !known || under < have {
			have, known = under, true
		}
	}
	return have, known, nil
}

// diskWay says how so many bytes more could be had.
func (n *node) diskWay(lack int64) string {
	way := fmt.Sprintf("make %s more room on the disk of %s, or start mootd with another --data-dir", megabytes(lack), n.dir)
	if most := n.maxBytes.Load(); most > 0 {
		way += fmt.Sprintf("; cache_max_mb, which is %d, would have to be %d", most/1e6, (most+lack)/1e6+1)
	}
	return way
}

// exchangeSeconds is how long a round leaves for deltas to travel: what is
// left of the period when training ends.
func exchangeSeconds(m *run.Manifest) float64 { return float64(m.PeriodMillis) / 1e3 * 0.2 }

// linkOf is what a seat of so many moves in a round over a link. Every seat
// needs the deltas of all others, and on average sends its own as often.
func linkOf(m *run.Manifest, delta int64, seats int, mbit float64) api.PlanLink {
	bytes := delta * int64(max(seats-1, 0))
	l := api.PlanLink{Mbit: mbit, Seats: seats, UpBytes: bytes, DownBytes: bytes, Verdict: api.VerdictUnknown}
	if mbit > 0 {
		l.Seconds = float64(bytes) * 8 / (mbit * 1e6)
		l.Verdict = verdict(int64(l.Seconds*1e6), int64(exchangeSeconds(m)*1e6))
	}
	return l
}

func (n *node) fitTraffic(m *run.Manifest, l *fold.Layout, mbit float64) api.FitItem {
	source := "the stated link"
	if mbit == 0 {
		source = "upload_mbit and download_mbit"
		for _, v := range []float64{n.limits.UpMbit, n.limits.DownMbit} {
			if v > 0 && (mbit == 0 || v < mbit) {
				mbit = v
			}
		}
	}
	link := linkOf(m, fold.EncodedBytes(l, int(m.CodecBits)), int(m.Seats), mbit)
	period := exchangeSeconds(m)
	least := float64(link.UpBytes) * 8 / 1e6 / period
	i := api.FitItem{
		Name: "traffic", Verdict: link.Verdict, NeedBytes: link.UpBytes, HaveBytes: -1,
		Text: fmt.Sprintf("a round moves up to %s in each direction, with all %d seats taken, for which it leaves %.3g s: %.3g Mbit/s",
			megabytes(link.UpBytes), m.Seats, period, least),
	}
	if mbit == 0 {
		i.Text += "; how fast the link is, is not stated"
		return i
	}
	i.HaveBytes = int64(mbit * 1e6 / 8 * period)
	i.Text += fmt.Sprintf("; %s: %.3g Mbit/s, %.3g s", source, mbit, link.Seconds)
	if i.Verdict == api.VerdictExceeds {
		i.Way = fmt.Sprintf("your deltas would come too late for full rounds, and count less; a run with codec_bits 1 or a period of %.0f s would do",
			float64(m.PeriodMillis)/1e3*link.Seconds/period)
	}
	return i
}

func fitLicence(m *run.Manifest) api.FitItem {
	i := api.FitItem{Name: "licence", Verdict: api.VerdictFits}
	l := &m.Licences
	i.Text = fmt.Sprintf("model %s, data %s, use %s", plainText(orElse(l.Model, "not stated")), plainText(orElse(l.Data, "not stated")), l.Use)
	broken, notes := licenceRules(l)
	if len(broken) > 0 {
		i.Verdict, i.Code, i.Text = api.VerdictRefused, api.CodeRefused, strings.Join(broken, "; ")
		i.Way = "take part in a run whose licences allow what it is for"
	} else if len(notes) > 0 {
		i.Text += "; " + strings.Join(notes, "; ")
	}
	return i
}

func (n *node) fitAdmission(m *run.Manifest, id cid.Cid) api.FitItem {
	i := api.FitItem{Name: "admission", Verdict: api.VerdictFits, Text: "everybody may take part"}
	a := &m.Admission
	switch {
	case m.Launcher == n.host.ID():
		i.Text = "this node launches the run"
	case a.Mode == run.AdmissionList && slices.Contains(a.Allowed, n.host.ID()):
		i.Text = "this node is on the list"
	case a.Mode == run.AdmissionList:
		i.Verdict, i.Code = api.VerdictRefused, api.CodeRefused
		i.Text = fmt.Sprintf("the run is for %d peers, of which %s is none", len(a.Allowed), n.host.ID())
		i.Way = "ask whoever launches it to put this peer ID on the list of the next run"
	case a.Mode == run.AdmissionInvite && n.invited(id):
		i.Text = "the run takes whoever has an invitation, and there is one"
	case a.Mode == run.AdmissionInvite:
		i.Verdict, i.Code = api.VerdictRefused, api.CodeRefused
		i.Text = "the run takes whoever has an invitation, and there is none"
		i.Way = `give the line that "moot invite" prints to "moot join --invite"`
	}
	if a.WorkBits > 0 {
		i.Text += fmt.Sprintf("; a newcomer computes about 2^%d hashes once", a.WorkBits)
	}
	return i
}

// invited reports whether an invitation to a run was kept; whether it holds is
// for the run to say.
func (n *node) invited(id cid.Cid) bool {
	if !id.Defined() {
		return false
	}
	_, err := os.Stat(filepath.Join(n.runs.folder(id), runner.InviteFile))
	return err == nil
}

func partsText(parts []api.FitPart) string {
	var list []string
	for _, p := range parts {
		if p.Bytes > 0 {
			list = append(list, megabytes(p.Bytes)+" of "+p.Name)
		}
	}
	return strings.Join(list, ", ")
}
