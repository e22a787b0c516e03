package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// newLogger makes the operator's log.
func newLogger(c LogConfig) *slog.Logger {
	options := &slog.HandlerOptions{Level: logLevels[c.Level]}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(os.Stderr, options))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, options))
}

var logLevels = map[string]slog.Level{
	"": slog.LevelInfo, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

// newTracer makes a tracer, and what flushes it at the end. Without an endpoint
// both do nothing, whatever OTEL_* variables say. A collector that is down costs
// traces, never a request.
func newTracer(ctx context.Context, c TelemetryConfig, logger *slog.Logger) (trace.Tracer, func(), error) {
	if c.OTLP == "" {
		return nil, func() {}, nil
	}
	endpoint, err := url.Parse(c.OTLP)
	if err != nil {
		return nil, nil, fmt.Errorf("telemetry.otlp: %w", err)
	}
	if strings.TrimSuffix(endpoint.Path, "/") == "" {
		endpoint.Path = "/v1/traces" // OTLP section 2.3: below the collector's own URL
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Warn("traces could not be sent", "error", err) }))
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint.String()))
	if err != nil {
		return nil, nil, fmt.Errorf("telemetry.otlp: %w", err)
	}
	sample := c.Sample
	if sample == 0 {
		sample = 1
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(sample))),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "proviso"), attribute.String("service.version", version()))),
	)
	flush := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = provider.Shutdown(ctx) // the collector may be gone; nothing depends on it
	}
	return provider.Tracer("github.com/proviso-ci/proviso"), flush, nil
}
