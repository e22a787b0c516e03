package server

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/proviso-ci/proviso"
)

// Metrics are the broker's numbers. No label holds a caller's text: grants and
// issuers are names of the configuration, stages and codes are ours.
type Metrics struct {
	registry  *prometheus.Registry
	exchanges *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	inFlight  prometheus.Gauge
}

// NewMetrics makes a registry of its own, so that two brokers in one process
// (a test, a lab) don't share numbers.
func NewMetrics(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		exchanges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "proviso_exchanges_total", Help: "Requests at /token by how they ended."},
			[]string{"grant", "result", "stage", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "proviso_exchange_seconds", Help: "Time of a request at /token from its first byte to its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}},
			[]string{"result"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "proviso_exchanges_in_flight", Help: "Requests at /token, /runner/join and /runner/renew that are worked on now."}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "proviso_build_info", Help: "1, with the version as a label.",
		ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	m.registry.MustRegister(m.exchanges, m.duration, m.inFlight, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Gauge registers a number that is read when it is asked for.
func (m *Metrics) Gauge(name, help string, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

// Counter registers a count that another part keeps.
func (m *Metrics) Counter(name, help string, read func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, read))
}

// Handler serves the numbers in Prometheus' text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// granted and refused count how a request ended. grant is empty until the
// grant is known to exist, so that a caller can't fill the registry with names.
func (m *Metrics) granted(grant string, took time.Duration) {
	m.exchanges.WithLabelValues(grant, "granted", "", "").Inc()
	m.duration.WithLabelValues("granted").Observe(took.Seconds())
}

func (m *Metrics) refused(grant string, stage proviso.Stage, code proviso.Code, took time.Duration) {
	m.exchanges.WithLabelValues(grant, "refused", string(stage), string(code)).Inc()
	m.duration.WithLabelValues("refused").Observe(took.Seconds())
}

// IssuerGauge is Gauge with the name of a configured issuer as its label.
func (m *Metrics) IssuerGauge(name, help, issuer string, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help,
		ConstLabels: prometheus.Labels{"issuer": issuer}}, read))
}
