// The reader of Graylog's library for Go, alone: `gelf_reader ADDRESS` prints a line of JSON for each message that it
// has read by UDP. (Its reader for TCP is not exported.)
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"syscall"

	"github.com/Graylog2/go-gelf/gelf"
)

const receiveBuffer = 8 << 20

type record struct {
	Version   string         `json:"version"`
	Host      string         `json:"host"`
	Short     string         `json:"short_message"`
	Full      string         `json:"full_message"`
	Timestamp float64        `json:"timestamp"`
	Level     int32          `json:"level"`
	Extra     map[string]any `json:"extra"`
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address string) error {
	reader, err := gelf.NewReader(address)
	if err != nil {
		return err
	}
	enlargeBuffers()
	messages := make(chan *gelf.Message, 1<<16)
	go printAll(messages)
	for {
		message, err := reader.ReadMessage()
		if err != nil {
			return err
		}
		messages <- message
	}
}

// The library keeps its socket to itself, and the kernel's usual buffer holds some hundred messages.
func enlargeBuffers() {
	for fd := 3; fd < 64; fd++ {
		if kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE); err == nil && kind == syscall.SOCK_DGRAM {
			_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBuffer)
			// As root also beyond net.core.rmem_max.
			_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, receiveBuffer)
		}
	}
}

// What has come is written at once, together.
func printAll(messages <-chan *gelf.Message) {
	output := bufio.NewWriterSize(os.Stdout, 1<<16)
	encoder := json.NewEncoder(output)
	for message := range messages {
		line := record{
			message.Version, message.Host, message.Short, message.Full, message.TimeUnix, message.Level, message.Extra,
		}
		if err := encoder.Encode(line); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if len(messages) == 0 {
			_ = output.Flush()
		}
	}
}
