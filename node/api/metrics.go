package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metricsTimeout bounds how long the daemon may take to answer a scrape.
const metricsTimeout = 5 * time.Second

// maxMeasuredRuns bounds the series of a scrape: those of the runs that this
// node joined last.
const maxMeasuredRuns = 50

// metrics answers GET /metrics in the text format of Prometheus, with what the
// daemon's packages register in more, such as libp2p. Like the rest of the API
// it wants the token; Prometheus sends it with "authorization:
// {credentials_file: …/api.token}".
func (s *Server) metrics(more prometheus.Gatherer) http.HandlerFunc {
	own := prometheus.NewRegistry()
	own.MustRegister(
		&nodeCollector{s.backend}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	all := prometheus.Gatherers{own}
	if more != nil {
		all = append(all, more)
	}
	h := promhttp.HandlerFor(all, promhttp.HandlerOpts{
		// What can be told is told; what cannot is missing, and logged.
		ErrorHandling: promhttp.ContinueOnError, ErrorLog: promLog{s}, MaxRequestsInFlight: 4,
	})
	return h.ServeHTTP
}

type promLog struct{ s *Server }

func (l promLog) Println(v ...any) {
	l.s.log.Warn("metrics are incomplete", "err", v)
}

// nodeCollector tells what the API tells, as metrics.
type nodeCollector struct{ backend Backend }

type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func newMetric(name, help string, kind prometheus.ValueType, labels ...string) metric {
	return metric{prometheus.NewDesc("moot_"+name, help, labels, nil), kind}
}

var (
	metricInfo    = newMetric("info", "Always 1; what runs here.", prometheus.GaugeValue, "version", "peer", "device")
	metricState   = newMetric("state", "1 for the state that the node is in.", prometheus.GaugeValue, "state")
	metricReason  = newMetric("not_training_reason", "1 for the reason why the node does not train.", prometheus.GaugeValue, "reason")
	metricStarted = newMetric("start_time_seconds", "When the daemon started, in seconds since 1970.", prometheus.GaugeValue)
	metricPeers   = newMetric("peers", "Connected peers.", prometheus.GaugeValue)
	metricRuns    = newMetric("runs", "Joined runs.", prometheus.GaugeValue)
	metricUtil    = newMetric("device_utilization_ratio", "How much of the time a device is used, by all programs.", prometheus.GaugeValue, "device")
	metricMemory  = newMetric("device_memory_bytes", "Memory of a device: used by all programs, by others than this node, and all there is.", prometheus.GaugeValue, "device", "part")
	metricHeat    = newMetric("device_temperature_celsius", "Temperature of a device.", prometheus.GaugeValue, "device")
	metricPower   = newMetric("device_power_watts", "Power that a device takes.", prometheus.GaugeValue, "device")
	metricTraffic = newMetric("content_bytes_total", "Bytes of models, data, states and deltas since the daemon started.", prometheus.CounterValue, "direction")

	metricRunState     = newMetric("run_state", "1 for the state that a joined run is in.", prometheus.GaugeValue, "run", "name", "state")
	metricRunRound     = newMetric("run_round", "The last decided round.", prometheus.GaugeValue, "run")
	metricRunTrained   = newMetric("run_trained_rounds_total", "Rounds with a contribution.", prometheus.CounterValue, "run")
	metricRunCertified = newMetric("run_certified_rounds_total", "Rounds with a certificate.", prometheus.CounterValue, "run")
	metricRunTokens    = newMetric("run_tokens_total", "Tokens that all peers of the run trained on.", prometheus.CounterValue, "run")
	metricRunSeats     = newMetric("run_seats", "Seats of the next round.", prometheus.GaugeValue, "run")
	metricRunTrain     = newMetric("run_train_loss", "Loss of the last round's contributions, in nats per token.", prometheus.GaugeValue, "run")
	metricRunEval      = newMetric("run_eval_loss", "Held-out loss that was recorded last, or measured by this node, in nats per token.", prometheus.GaugeValue, "run")
)

// states are all that a node can be in, so that each has a series at all times.
var states = []NodeState{NodeIdle, NodeSyncing, NodeWaiting, NodeTraining, NodePaused, NodeStopping}

// Describe implements prometheus.Collector.
func (c *nodeCollector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range []metric{
		metricInfo, metricState, metricReason, metricStarted, metricPeers, metricRuns, metricTraffic, metricRunState, metricRunRound,
		metricUtil, metricMemory, metricHeat, metricPower,
		metricRunTrained, metricRunCertified, metricRunTokens, metricRunSeats, metricRunTrain, metricRunEval,
	} {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *nodeCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), metricsTimeout)
	defer cancel()
	tell := func(m metric, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
	}
	s, err := c.backend.Status(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(metricInfo.desc, err)
		return
	}
	tell(metricInfo, 1, s.Version, s.Peer, s.Device)
	for _, state := range states {
		tell(metricState, one(state == s.State), string(state))
	}
	if s.Reason != "" {
		tell(metricReason, 1, s.Reason)
	}
	tell(metricStarted, float64(s.Started.Unix()))
	tell(metricPeers, float64(s.Peers))
	tell(metricRuns, float64(s.Runs))
	tell(metricTraffic, float64(s.Traffic.PulledBytes), "in")
	tell(metricTraffic, float64(s.Traffic.SentBytes), "out")

	collectDevices(s.Devices, tell)
	runs, err := c.backend.Runs(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(metricRunRound.desc, err)
		return
	}
	runs = slices.DeleteFunc(slices.Clone(runs), func(r Run) bool { return !r.Joined })
	for _, r := range runs[max(0, len(runs)-maxMeasuredRuns):] {
		tell(metricRunState, 1, r.ID, r.Name, string(r.State))
		tell(metricRunRound, float64(r.Round), r.ID)
		tell(metricRunTrained, float64(r.TrainedRounds), r.ID)
		tell(metricRunCertified, float64(r.CertifiedRounds), r.ID)
		tell(metricRunTokens, float64(r.Tokens), r.ID)
		tell(metricRunSeats, float64(r.Seats), r.ID)
		if r.TrainLoss != nil {
			tell(metricRunTrain, *r.TrainLoss, r.ID)
		}
		if r.EvalLoss != nil {
			tell(metricRunEval, *r.EvalLoss, r.ID)
		}
	}
}

// collectDevices tells what is known of devices.
func collectDevices(list []Device, tell func(m metric, v float64, labels ...string)) {
	seen := map[string]bool{}
	for _, d := range list {
		if seen[d.Name] {
			continue // two of a kind would be one series twice
		}
		seen[d.Name] = true
		if d.UtilPercent != nil {
			tell(metricUtil, float64(*d.UtilPercent)/100, d.Name)
		}
		for part, bytes := range map[string]*int64{"used": d.UsedBytes, "other": d.OtherBytes, "total": d.TotalBytes} {
			if bytes != nil {
				tell(metricMemory, float64(*bytes), d.Name, part)
			}
		}
		if d.Celsius != nil {
			tell(metricHeat, float64(*d.Celsius), d.Name)
		}
		if d.Watts != nil {
			tell(metricPower, float64(*d.Watts), d.Name)
		}
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
