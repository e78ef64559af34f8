// The OpenTelemetry Collector's OTLP receiver, by HTTP, alone: `otlp_collector ADDRESS` prints a line of JSON for
// each record that it has read. A record with the body "refuse me" it refuses for good, with its whole request.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type record struct {
	Time       int64          `json:"time_ns"`
	Severity   int32          `json:"severity"`
	Text       string         `json:"severity_text"`
	Body       any            `json:"body"`
	Attributes map[string]any `json:"attributes"`
	Resource   map[string]any `json:"resource"`
	Scope      string         `json:"scope"`
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}

func run(address string) error {
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	http := map[string]any{"protocols": map[string]any{"http": map[string]any{"endpoint": address}}}
	if err := confmap.NewFromStringMap(http).Unmarshal(config); err != nil {
		return err
	}
	encoder := json.NewEncoder(os.Stdout)
	printer, err := consumer.NewLogs(func(_ context.Context, logs plog.Logs) error { return printAll(encoder, logs) })
	if err != nil {
		return err
	}
	receiver, err := factory.CreateLogs(
		context.Background(), receivertest.NewNopSettings(factory.Type()), config, printer)
	if err != nil {
		return err
	}
	return receiver.Start(context.Background(), componenttest.NewNopHost())
}

func printAll(encoder *json.Encoder, logs plog.Logs) error {
	var lines []record
	for _, resource := range logs.ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, log := range scope.LogRecords().All() {
				if log.Body().AsString() == "refuse me" {
					return consumererror.NewPermanent(status.Error(codes.InvalidArgument, "told to refuse it"))
				}
				lines = append(lines, record{
					int64(log.Timestamp()), int32(log.SeverityNumber()), log.SeverityText(), log.Body().AsRaw(),
					log.Attributes().AsRaw(), resource.Resource().Attributes().AsRaw(), scope.Scope().Name(),
				})
			}
		}
	}
	for _, line := range lines {
		if err := encoder.Encode(line); err != nil {
			return err
		}
	}
	return nil
}
