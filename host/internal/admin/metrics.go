package admin

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/deskhost/deskhost/host/internal/desk"
)

// newRegistry holds the host's metrics. They are gathered when asked for, from
// the same facts as /v1/desks.
func newRegistry(o Options) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collector{o},
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
	deskState      = prometheus.NewDesc("deskhost_desk_state", "1 for the state that the desk is in, 0 for the others.", []string{"desk", "plugin", "version", "state"}, nil)
	deskStateSince = prometheus.NewDesc("deskhost_desk_state_since_timestamp_seconds", "When the desk got into its state, as Unix time.", []string{"desk"}, nil)
	deskGeneration = prometheus.NewDesc("deskhost_desk_generation", "Which process of the desk it is, counted over the life of the host.", []string{"desk"}, nil)
	deskCrashes    = prometheus.NewDesc("deskhost_desk_crashes_total", "How often the desk's process ended by itself.", []string{"desk"}, nil)
	deskRestarts   = prometheus.NewDesc("deskhost_desk_restarts_total", "How often the desk's process was started again.", []string{"desk"}, nil)
	deskChats      = prometheus.NewDesc("deskhost_chats_open", "Conversations that are open.", []string{"desk"}, nil)
	deskAway       = prometheus.NewDesc("deskhost_chats_away", "Open conversations that no process serves at this moment: the desk is down, or has not resumed them yet.", []string{"desk"}, nil)
	pluginMemory   = prometheus.NewDesc("deskhost_plugin_memory_bytes", "Memory that a process of the desk and its children have resident; limits.plugin_memory bounds it.", []string{"desk", "generation"}, nil)
	pluginCPU      = prometheus.NewDesc("deskhost_plugin_cpu_seconds_total", "Processor time that a process of the desk and its children have used.", []string{"desk", "generation"}, nil)
	pluginFile     = prometheus.NewDesc("deskhost_plugin_file_taken", "1 for a file of the plugin folder that may run, 0 for one that is refused or missing.", []string{"file", "plugin", "version", "sha256"}, nil)
	journalBytes   = prometheus.NewDesc("deskhost_journal_bytes", "What the journal takes on disk.", nil, nil)
	diskFree       = prometheus.NewDesc("deskhost_disk_free_bytes", "What is left on the journal's disk; none if that cannot be told.", nil, nil)
	diskFull       = prometheus.NewDesc("deskhost_disk_full", "1 while less than limits.disk_reserve is left: nothing new is begun.", nil, nil)
	configLoaded   = prometheus.NewDesc("deskhost_config_loaded_timestamp_seconds", "When the configuration that holds was read, as Unix time.", nil, nil)
	configGood     = prometheus.NewDesc("deskhost_config_good", "0 if the configuration file as it is now was refused.", nil, nil)
)

// deskStates are those that an alert can ask for.
var deskStates = []desk.State{
	desk.StateStarting, desk.StateReady, desk.StateDraining, desk.StateBackingOff,
	desk.StateFailed, desk.StateQuarantined, desk.StateDisabled,
}

type collector struct{ Options }

// Describe implements [prometheus.Collector].
func (collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		deskState, deskStateSince, deskGeneration, deskCrashes, deskRestarts, deskChats, deskAway, pluginMemory, pluginCPU, pluginFile,
		journalBytes, diskFree, diskFull, configLoaded, configGood,
	} {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (c collector) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, d := range c.Desks() {
		for _, state := range deskStates {
			gauge(deskState, truth(d.State == state), d.Name, d.Plugin, d.Version, string(state))
		}
		gauge(deskStateSince, unix(d.Since), d.Name)
		gauge(deskGeneration, float64(d.Generation), d.Name)
		to <- prometheus.MustNewConstMetric(deskCrashes, prometheus.CounterValue, float64(d.Crashes), d.Name)
		to <- prometheus.MustNewConstMetric(deskRestarts, prometheus.CounterValue, float64(d.Restarts), d.Name)
		gauge(deskChats, float64(d.Chats), d.Name)
		gauge(deskAway, float64(d.ChatsAway), d.Name)
		for _, g := range d.Generations {
			if g.MemoryBytes == 0 { // not looked at yet, or the system does not tell
				continue
			}
			number := strconv.FormatUint(g.Number, 10)
			gauge(pluginMemory, float64(g.MemoryBytes), d.Name, number)
			to <- prometheus.MustNewConstMetric(pluginCPU, prometheus.CounterValue, g.CPUSeconds, d.Name, number)
		}
	}
	for _, p := range c.Plugins() {
		gauge(pluginFile, truth(p.Problem == ""), labelOf(p.File), labelOf(p.Name), p.Version, p.SHA256)
	}
	storage := c.Storage()
	gauge(journalBytes, float64(storage.Journal))
	if storage.Problem == "" {
		gauge(diskFree, float64(storage.Free))
	}
	gauge(diskFull, truth(storage.Full))
	config := c.Config()
	gauge(configLoaded, unix(config.Loaded))
	gauge(configGood, truth(config.Problem == ""))
}

// labelOf is the label for what a file is named, which can be any bytes: quoted if
// it is no text, because a label has to be, and no two files may have the same.
func labelOf(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	return strconv.Quote(name)
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
