// A CoAP server and client on go-coap, driven over standard input and output (test/peers/protocol.ts says how).
//
//	coap-peer server HOST PORT   serves the resources that every peer serves, until standard input ends
//	coap-peer client HOST PORT   one command a line, one JSON result a line
//	coap-peer version
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapNet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/net/blockwise"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"
	"github.com/plgd-dev/go-coap/v3/udp/client"
)

const small = "a small body of 29 octets: ok"
const patience = 8 * time.Second

func pattern(size int, seed int) []byte {
	out := make([]byte, size)
	for i := range out {
		out[i] = byte(i*31 + (i>>8)*17 + seed)
	}
	return out
}

// ---------------------------------------------------------------- server

// observers of one resource; go-coap leaves the list, the tick and the end by RST to the program
type observers struct {
	mutex  sync.Mutex
	count  int
	render func(count int) (body, etag []byte)
	byName map[string]*observer
}

type observer struct {
	conn  mux.Conn
	token message.Token
	mids  [16]int32 // of the last notifications: a reset may answer an earlier one
	sent  int
	busy  bool
}

func name(conn mux.Conn, token message.Token) string {
	return conn.RemoteAddr().String() + " " + token.String()
}

func (o *observers) serve(w mux.ResponseWriter, r *mux.Message) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	key := name(w.Conn(), r.Token())
	body, etag := o.render(o.count)
	extra := []message.Option{}
	if etag != nil {
		extra = append(extra, message.Option{ID: message.ETag, Value: etag})
	}
	observe, err := r.Options().Observe()
	if err == nil && observe == 0 {
		o.byName[key] = &observer{conn: w.Conn(), token: append(message.Token{}, r.Token()...)}
		extra = append(extra, message.Option{ID: message.Observe, Value: []byte{byte((o.count + 1) >> 8), byte(o.count + 1)}})
	} else if err == nil && observe == 1 {
		delete(o.byName, key)
	}
	_ = w.SetResponse(codes.Content, message.TextPlain, bytes.NewReader(body), extra...)
}

func (o *observers) tick() {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.count++
	body, etag := o.render(o.count)
	for key, each := range o.byName {
		if each.busy {
			continue // a notification is still unacknowledged: this state is skipped, as RFC 7641 allows
		}
		each.busy = true
		go o.notify(key, each, body, etag, uint32(o.count+1))
	}
}

func (o *observers) notify(key string, each *observer, body, etag []byte, sequence uint32) {
	ctx, cancel := context.WithTimeout(each.conn.Context(), patience)
	defer cancel()
	m := each.conn.AcquireMessage(ctx)
	defer each.conn.ReleaseMessage(m)
	m.SetCode(codes.Content)
	m.SetToken(each.token)
	m.SetObserve(sequence)
	m.SetContentFormat(message.TextPlain)
	if etag != nil {
		_ = m.SetETag(etag)
	}
	m.SetBody(bytes.NewReader(body))
	if len(body) < 1024 {
		m.SetType(message.NonConfirmable)
		if sequence%10 == 0 {
			m.SetType(message.Confirmable)
		}
	}
	if conn, ok := each.conn.(interface{ GetMessageID() int32 }); ok {
		// go-coap sends a copy of the message under the next number, and tells nobody which
		mid := conn.GetMessageID() + 1
		o.mutex.Lock()
		each.mids[each.sent%len(each.mids)] = mid
		each.sent++
		o.mutex.Unlock()
	}
	err := each.conn.WriteMessage(m)
	o.mutex.Lock()
	defer o.mutex.Unlock()
	each.busy = false
	if err != nil {
		delete(o.byName, key)
	}
}

func (o *observers) reset(remote net.Addr, mid int32) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	for key, each := range o.byName {
		if each.conn.RemoteAddr().String() == remote.String() && each.sent > 0 && slices.Contains(each.mids[:], mid) {
			delete(o.byName, key)
		}
	}
}

func runServer(host, port string) error {
	obs := &observers{byName: map[string]*observer{}, render: func(n int) ([]byte, []byte) {
		return []byte(fmt.Sprintf("tick %d", n)), nil
	}}
	obsLarge := &observers{byName: map[string]*observer{}, render: func(n int) ([]byte, []byte) {
		return pattern(10240, n&255), []byte{0x20, byte(n >> 8), byte(n)}
	}}
	var storeMutex sync.Mutex
	var store []byte
	fixed := func(body []byte, format message.MediaType) mux.HandlerFunc {
		return func(w mux.ResponseWriter, r *mux.Message) {
			_ = w.SetResponse(codes.Content, format, bytes.NewReader(body))
		}
	}
	router := mux.NewRouter()
	handle := func(path string, handler mux.HandlerFunc) { _ = router.Handle(path, handler) }
	handle("/small", fixed([]byte(small), message.TextPlain))
	handle("/reading", fixed(pattern(175, 3), message.MediaType(18)))
	handle("/critical", fixed([]byte(small), message.TextPlain))
	handle("/large", func(w mux.ResponseWriter, r *mux.Message) {
		_ = w.SetResponse(codes.Content, message.AppOctets, bytes.NewReader(pattern(10240, 1)), message.Option{ID: message.ETag, Value: []byte{0x10, 0x01}})
	})
	handle("/obs", obs.serve)
	handle("/obslarge", obsLarge.serve)
	handle("/slow", func(w mux.ResponseWriter, r *mux.Message) {
		conn, token := w.Conn(), append(message.Token{}, r.Token()...)
		go func() { // no response here: go-coap sends the empty acknowledgement
			time.Sleep(500 * time.Millisecond)
			m := conn.AcquireMessage(conn.Context())
			defer conn.ReleaseMessage(m)
			m.SetCode(codes.Content)
			m.SetToken(token)
			m.SetContentFormat(message.TextPlain)
			m.SetBody(bytes.NewReader([]byte("late")))
			_ = conn.WriteMessage(m)
		}()
	})
	handle("/store", func(w mux.ResponseWriter, r *mux.Message) {
		storeMutex.Lock()
		defer storeMutex.Unlock()
		if r.Code() == codes.GET {
			_ = w.SetResponse(codes.Content, message.AppOctets, bytes.NewReader(store))
			return
		}
		store = nil
		if r.Body() != nil {
			store, _ = io.ReadAll(r.Body())
		}
		_ = w.SetResponse(codes.Changed, message.TextPlain, nil)
	})
	handle("/etag", func(w mux.ResponseWriter, r *mux.Message) {
		tag := message.Option{ID: message.ETag, Value: []byte{0x65, 0x30, 0x31}}
		if asked, err := r.Options().GetBytes(message.ETag); err == nil && bytes.Equal(asked, tag.Value) {
			_ = w.SetResponse(codes.Valid, message.TextPlain, nil, tag)
			return
		}
		_ = w.SetResponse(codes.Content, message.TextPlain, bytes.NewReader([]byte("tagged body")), tag)
	})
	handle("/accept", func(w mux.ResponseWriter, r *mux.Message) {
		if accept, err := r.Options().Accept(); err == nil && accept != message.TextPlain {
			_ = w.SetResponse(codes.NotAcceptable, message.TextPlain, nil)
			return
		}
		_ = w.SetResponse(codes.Content, message.TextPlain, bytes.NewReader([]byte("plain")))
	})
	handle("/ifmatch", func(w mux.ResponseWriter, r *mux.Message) {
		failed := r.Options().HasOption(message.IfNoneMatch)
		if tag, err := r.Options().GetBytes(message.IfMatch); err == nil && !bytes.Equal(tag, []byte{0x65, 0x30, 0x32}) {
			failed = true
		}
		code := codes.Changed
		if failed {
			code = codes.PreconditionFailed
		}
		_ = w.SetResponse(code, message.TextPlain, nil)
	})
	listener, err := coapNet.NewListenUDP("udp", net.JoinHostPort(host, port))
	if err != nil {
		return err
	}
	server := udp.NewServer(
		options.WithMux(router),
		options.WithBlockwise(true, blockwise.SZX1024, patience),
		options.WithRequestMonitor(func(conn *client.Conn, r *pool.Message) (bool, error) {
			if r.Type() == message.Reset {
				obs.reset(conn.RemoteAddr(), r.MessageID())
				obsLarge.reset(conn.RemoteAddr(), r.MessageID())
			}
			return false, nil
		}),
	)
	go func() {
		for range time.Tick(50 * time.Millisecond) {
			obs.tick()
		}
	}()
	go func() {
		for range time.Tick(400 * time.Millisecond) {
			obsLarge.tick()
		}
	}()
	go func() { _ = server.Serve(listener) }()
	fmt.Printf("{\"ready\":true,\"port\":%s}\n", port)
	_, err = io.Copy(io.Discard, os.Stdin)
	server.Stop()
	return err
}

// ---------------------------------------------------------------- client

func outcome(m *pool.Message) map[string]any {
	body, _ := m.ReadBody()
	code := m.Code()
	found := map[string]any{"code": fmt.Sprintf("%d.%02d", code>>5, code&31), "payload": hex.EncodeToString(body)}
	if tag, err := m.ETag(); err == nil {
		found["etag"] = hex.EncodeToString(tag)
	}
	if format, err := m.ContentFormat(); err == nil {
		found["format"] = int(format)
	}
	return found
}

func requestOptions(fields map[string]string) []message.Option {
	var out message.Options
	number := func(id message.OptionID, text string) {
		value, _ := strconv.Atoi(text)
		buffer := make([]byte, 4)
		out, _, _ = out.AddUint32(buffer, id, uint32(value))
	}
	octets := func(id message.OptionID, text string) {
		value, _ := hex.DecodeString(text)
		out = out.Add(message.Option{ID: id, Value: value})
	}
	for key, value := range fields {
		switch key {
		case "etag":
			octets(message.ETag, value)
		case "ifmatch":
			octets(message.IfMatch, value)
		case "ifnonematch":
			octets(message.IfNoneMatch, "")
		case "accept":
			number(message.Accept, value)
		case "critical":
			id, _ := strconv.Atoi(value)
			octets(message.OptionID(id), "78")
		}
	}
	return out
}

func request(conn *client.Conn, fields map[string]string) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	method := map[string]codes.Code{"GET": codes.GET, "PUT": codes.PUT, "POST": codes.POST, "": codes.GET}[fields["method"]]
	m, err := conn.NewGetRequest(ctx, fields["path"], requestOptions(fields)...)
	if err != nil {
		return nil, err
	}
	defer conn.ReleaseMessage(m)
	m.SetCode(method)
	if size, ok := fields["size"]; ok {
		n, _ := strconv.Atoi(size)
		seed, _ := strconv.Atoi(fields["seed"])
		if format, ok := fields["format"]; ok {
			value, _ := strconv.Atoi(format)
			m.SetContentFormat(message.MediaType(value))
		}
		m.SetBody(bytes.NewReader(pattern(n, seed)))
	}
	if fields["type"] == "NON" {
		m.SetType(message.NonConfirmable)
	}
	response, err := conn.Do(m)
	if err != nil {
		return nil, err
	}
	defer conn.ReleaseMessage(response)
	return outcome(response), nil
}

func observe(conn *client.Conn, fields map[string]string) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	wanted, _ := strconv.Atoi(fields["count"])
	byReset := fields["cancel"] == "rst"
	var mutex sync.Mutex
	found := []map[string]any{}
	enough, reset := make(chan struct{}), make(chan struct{})
	observation, err := conn.Observe(ctx, fields["path"], func(m *pool.Message) {
		mutex.Lock()
		defer mutex.Unlock()
		if len(found) == wanted {
			if byReset && m.Type() != message.Acknowledgement {
				// go-coap has no call for it: the program sends the RST for the first notification it does not want
				select {
				case <-reset:
				default:
					rst := conn.AcquireMessage(context.Background())
					rst.SetType(message.Reset)
					rst.SetCode(codes.Empty)
					rst.SetMessageID(m.MessageID())
					_ = conn.Session().WriteMessage(rst)
					conn.ReleaseMessage(rst)
					close(reset)
				}
			}
			return
		}
		each := outcome(m)
		_, err := m.Observe()
		each["observe"] = err == nil
		found = append(found, each)
		if len(found) == wanted {
			close(enough)
		}
	})
	if err != nil {
		return nil, err
	}
	wait := func(done chan struct{}) error {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%d of %d notifications", len(found), wanted)
		}
	}
	if err := wait(enough); err != nil {
		return nil, err
	}
	if byReset {
		err = wait(reset)
	} else {
		err = observation.Cancel(ctx)
	}
	if err != nil {
		return nil, err
	}
	return map[string]any{"notifications": found}, nil
}

func runClient(host, port string) error {
	conn, err := udp.Dial(net.JoinHostPort(host, port), options.WithBlockwise(true, blockwise.SZX1024, patience))
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		fields := map[string]string{}
		for _, word := range words[1:] {
			key, value, _ := strings.Cut(word, "=")
			fields[key] = value
		}
		do := request
		if words[0] == "observe" {
			do = observe
		}
		result, err := do(conn, fields)
		if err != nil {
			result = map[string]any{"error": err.Error()}
		}
		result["id"], _ = strconv.Atoi(fields["id"])
		text, _ := json.Marshal(result)
		fmt.Println(string(text))
	}
	return conn.Close()
}

func main() {
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == "server":
		err = runServer(os.Args[2], os.Args[3])
	case len(os.Args) == 4 && os.Args[1] == "client":
		err = runClient(os.Args[2], os.Args[3])
	case len(os.Args) == 2 && os.Args[1] == "version":
		info, _ := debug.ReadBuildInfo()
		for _, module := range info.Deps {
			if module.Path == "github.com/plgd-dev/go-coap/v3" {
				fmt.Printf("{\"name\":\"go-coap\",\"version\":\"%s\"}\n", module.Version)
			}
		}
	default:
		err = fmt.Errorf("usage: coap-peer server|client HOST PORT")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
