package traffic

import "github.com/prometheus/client_golang/prometheus"

// Describe implements prometheus.Collector.
func (m *Meter) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector: what was counted since the start, and
// how much of the month's quota is used.
func (m *Meter) Collect(ch chan<- prometheus.Metric) {
	u := m.Usage()
	bytes := prometheus.NewDesc("moot_traffic_bytes_total", "Content that travelled since the start, without protocol overhead.",
		[]string{"direction", "use", "where"}, nil)
	for where, c := range map[string][2][uses]uint64{"internet": u.Start.Internet, "lan": u.Start.LAN} {
		for d, name := range map[Direction]string{Out: "out", In: "in"} {
			for use := range uses {
				ch <- prometheus.MustNewConstMetric(bytes, prometheus.CounterValue, float64(c[d][use]), name, use.String(), where)
			}
		}
	}
	gauge := func(name, help string, v uint64) {
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, float64(v))
	}
	gauge("moot_traffic_month_bytes", "Content over the internet in this calendar month, both directions.", u.Month.total())
	gauge("moot_traffic_month_quota_bytes", "The most of it; 0: no limit.", u.Quota)
}
