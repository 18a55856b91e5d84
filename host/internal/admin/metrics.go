package admin

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// newRegistry holds the host's metrics. They are gathered when asked for, from
// the same facts as /v1/desks.
func newRegistry(o Options) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		deskCollector{o.Desks},
	)
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "deskhost_build_info", Help: "Always 1; the label tells the host's version.",
		ConstLabels: prometheus.Labels{"version": o.Version},
	})
	info.Set(1)
	r.MustRegister(info)
	return r
}

var (
	deskState      = prometheus.NewDesc("deskhost_desk_state", "1 for the state that the desk is in.", []string{"desk", "plugin", "version", "state"}, nil)
	deskStateSince = prometheus.NewDesc("deskhost_desk_state_since_seconds", "When the desk got into its state, as Unix time.", []string{"desk"}, nil)
	deskRestarts   = prometheus.NewDesc("deskhost_desk_restarts_total", "How often the desk's process was started again.", []string{"desk"}, nil)
	deskChats      = prometheus.NewDesc("deskhost_chats_open", "Conversations that are open.", []string{"desk"}, nil)
)

type deskCollector struct{ desks func() []Desk }

// Describe implements [prometheus.Collector].
func (deskCollector) Describe(to chan<- *prometheus.Desc) {
	to <- deskState
	to <- deskStateSince
	to <- deskRestarts
	to <- deskChats
}

// Collect implements [prometheus.Collector].
func (c deskCollector) Collect(to chan<- prometheus.Metric) {
	for _, d := range c.desks() {
		to <- prometheus.MustNewConstMetric(deskState, prometheus.GaugeValue, 1, d.Name, d.Plugin, d.Version, string(d.State))
		to <- prometheus.MustNewConstMetric(deskStateSince, prometheus.GaugeValue, float64(d.Since.UnixMilli())/1000, d.Name)
		to <- prometheus.MustNewConstMetric(deskRestarts, prometheus.CounterValue, float64(d.Restarts), d.Name)
		to <- prometheus.MustNewConstMetric(deskChats, prometheus.GaugeValue, float64(d.Chats), d.Name)
	}
}
