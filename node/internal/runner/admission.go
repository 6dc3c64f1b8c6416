package runner

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// InviteFile is where the folder of a run has the invitation to it.
const InviteFile = "invite"

// credentials are what this peer shows with its requests for a seat. The work
// that a run asks for is done here.
func (r *Runner) credentials(ctx context.Context) (round.Credentials, error) {
	c, err := r.hub.ticket(r.dir, r.id)
	if err != nil {
		return c, err
	}
	if bits := int(r.manifest.Admission.WorkBits); bits > 0 {
		r.stage.tell(api.Progress{Phase: "state", Text: "doing the work that the run asks newcomers for"})
		nonce, ok := msg.FindNonce(r.id, r.hub.self, bits, ctx.Done())
		if !ok {
			return c, ctx.Err()
		}
		c.Nonce = nonce
	}
	return c, nil
}

// Renew shows what is in the run's folder from now on: an invitation that came
// while the run was open takes effect.
func (r *Runner) Renew(ctx context.Context) error {
	c, err := r.credentials(ctx)
	if err == nil {
		err = r.draw()
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", r.id, err)
	}
	r.post(ctx, round.Show{Credentials: c})
	return nil
}

// Invite makes an invitation for so many rounds, 0: for all.
func (r *Runner) Invite(rounds uint64) (api.Invite, error) {
	switch {
	case r.manifest.Launcher != r.hub.self:
		return api.Invite{}, api.Errorf(api.CodeConflict, "run %s was launched by another node", api.ShortID(r.id.String())).
			WithHint("ask %s for an invitation", r.manifest.Launcher)
	case r.manifest.Admission.Mode != run.AdmissionInvite:
		return api.Invite{}, api.Errorf(api.CodeConflict, "run %s needs no invitation: its admission is %q", api.ShortID(r.id.String()), r.manifest.Admission.Mode)
	}
	v := api.Invite{Run: r.id.String()}
	if rounds > 0 {
		v.Until = min(uint64(r.ledger.Head().Record.Round)+rounds, msg.MaxRound)
	}
	var seed [ed25519.SeedSize]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return api.Invite{}, fmt.Errorf("make invitation: %w", err)
	}
	t, err := msg.NewTicket(r.hub.o.Key, r.id, msg.Round(v.Until), seed)
	if err != nil {
		return api.Invite{}, fmt.Errorf("make invitation: %w", err)
	}
	v.Invite = t.String()
	return v, nil
}
