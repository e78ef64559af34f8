// The readers of Graylog's library for Go, alone: `gelf_reader udp|tcp ADDRESS` prints a line of JSON for each message
// that it has read.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"syscall"
	_ "unsafe" // for go:linkname

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

// Its own tests alone may use the reader for TCP.
//
//go:linkname newTCPReader github.com/Graylog2/go-gelf/gelf.newTCPReader
func newTCPReader(address string) (*gelf.TCPReader, chan string, chan string, error)

//go:linkname readTCPMessage github.com/Graylog2/go-gelf/gelf.(*TCPReader).readMessage
func readTCPMessage(reader *gelf.TCPReader) (*gelf.Message, error)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(transport, address string) error {
	read, err := reading(transport, address)
	if err != nil {
		return err
	}
	messages := make(chan *gelf.Message, 1<<16)
	go printAll(messages)
	for {
		message, err := read()
		if err != nil {
			return err
		}
		messages <- message
	}
}

func reading(transport, address string) (func() (*gelf.Message, error), error) {
	if transport == "tcp" {
		runtime.GOMAXPROCS(1) // it waits for connections, and for the end of one that has ended, without a pause
		reader, _, _, err := newTCPReader(address)
		return func() (*gelf.Message, error) { return readTCPMessage(reader) }, err
	}
	reader, err := gelf.NewReader(address)
	if err != nil {
		return nil, err
	}
	enlargeBuffers()
	return reader.ReadMessage, nil
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
