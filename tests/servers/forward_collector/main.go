// The OpenTelemetry Collector's fluentforward receiver, alone: `forward_collector ADDRESS` prints a line of JSON
// for each record that it has read.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/open-telemetry/opentelemetry-collector-contrib/receiver/fluentforwardreceiver"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

type record struct {
	Time       int64          `json:"time_ns"`
	Message    string         `json:"message"`
	Attributes map[string]any `json:"attributes"`
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}

func run(address string) error {
	encoder := json.NewEncoder(os.Stdout)
	printer, err := consumer.NewLogs(func(_ context.Context, logs plog.Logs) error {
		for _, resource := range logs.ResourceLogs().All() {
			for _, scope := range resource.ScopeLogs().All() {
				for _, log := range scope.LogRecords().All() {
					line := record{int64(log.Timestamp()), log.Body().AsString(), log.Attributes().AsRaw()}
					if err := encoder.Encode(line); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	factory := fluentforwardreceiver.NewFactory()
	config := factory.CreateDefaultConfig().(*fluentforwardreceiver.Config)
	config.ListenAddress = address
	receiver, err := factory.CreateLogs(
		context.Background(), receivertest.NewNopSettings(factory.Type()), config, printer)
	if err != nil {
		return err
	}
	return receiver.Start(context.Background(), componenttest.NewNopHost())
}
