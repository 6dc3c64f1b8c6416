package traffic

import (
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
)

func TestMetrics(t *testing.T) {
	m := newMeter(t, Options{Limits: Limits{MonthlyBytes: 1000}, Near: func(p peer.ID) bool { return p == "lan" }})
	sendAll(t, m, "far", Training, 7)
	sendAll(t, m, "lan", Seeding, 5)
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(m); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, f := range families {
		for _, x := range f.Metric {
			if v := x.GetCounter().GetValue() + x.GetGauge().GetValue(); v != 0 {
				got += f.GetName()
				for _, l := range x.Label {
					got += " " + l.GetValue()
				}
				got += " " + strings.Repeat("x", int(v)/100+int(v)%100) + "\n"
			}
		}
	}
	want := "moot_traffic_bytes_total out seeding lan xxxxx\nmoot_traffic_bytes_total out training internet xxxxxxx\n" +
		"moot_traffic_month_bytes xxxxxxx\nmoot_traffic_month_quota_bytes xxxxxxxxxx\n"
	if got != want {
		t.Errorf("metrics are\n%s, want\n%s", got, want)
	}
}
