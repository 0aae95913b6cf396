// A DTLS 1.2 server and client on pion, for the interop suite and for benches.
//
//	dtls-peer server HOST PORT [flags]   echoes every datagram; one JSON line per association; until standard input ends
//	dtls-peer client HOST PORT [flags]   connects -times times, sends "hello", prints one JSON line per association
//	dtls-peer version
//
// Flags: -cert FILE -key FILE -ca FILE -auth none|optional|require -psk IDENTITY@HEX -servername NAME -times N -quiet
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
)

const patience = 10 * time.Second

// sessions keeps what pion needs to resume.
type sessions struct {
	mutex sync.Mutex
	kept  map[string]dtls.Session
	hits  int
}

func (s *sessions) Set(key []byte, session dtls.Session) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.kept[string(key)] = session
	return nil
}

func (s *sessions) Get(key []byte) (dtls.Session, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	found, ok := s.kept[string(key)]
	if ok {
		s.hits++
	}
	return found, nil
}

func (s *sessions) Del(key []byte) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.kept, string(key))
	return nil
}

type settings struct {
	cert, key, ca, auth, psk, servername string
	times                                int
	quiet                                bool
}

func parse(args []string) settings {
	var s settings
	flags := flag.NewFlagSet("dtls-peer", flag.ExitOnError)
	flags.StringVar(&s.cert, "cert", "", "own certificate chain, PEM")
	flags.StringVar(&s.key, "key", "", "its private key, PEM")
	flags.StringVar(&s.ca, "ca", "", "certificates to trust, PEM")
	flags.StringVar(&s.auth, "auth", "none", "client certificates: none, optional, require")
	flags.StringVar(&s.psk, "psk", "", "IDENTITY@HEX")
	flags.StringVar(&s.servername, "servername", "", "name that the server's certificate must carry")
	flags.IntVar(&s.times, "times", 1, "associations one after the other, resumed where possible")
	flags.BoolVar(&s.quiet, "quiet", false, "no line per association")
	_ = flags.Parse(args)
	return s
}

func (s settings) config(server bool, store *sessions) (*dtls.Config, error) {
	config := &dtls.Config{ExtendedMasterSecret: dtls.RequireExtendedMasterSecret, SessionStore: store, ServerName: s.servername}
	if s.cert != "" {
		pair, err := tls.LoadX509KeyPair(s.cert, s.key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if s.ca != "" {
		pem, err := os.ReadFile(s.ca)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		config.RootCAs, config.ClientCAs = pool, pool
	}
	config.ClientAuth = map[string]dtls.ClientAuthType{
		"none": dtls.NoClientCert, "optional": dtls.VerifyClientCertIfGiven, "require": dtls.RequireAndVerifyClientCert,
	}[s.auth]
	if s.psk != "" {
		identity, keyHex, _ := strings.Cut(s.psk, "@")
		key, err := hex.DecodeString(keyHex)
		if err != nil {
			return nil, err
		}
		config.PSK = func(hint []byte) ([]byte, error) {
			if server && string(hint) != identity {
				return nil, errors.New("unknown identity")
			}
			return key, nil
		}
		config.PSKIdentityHint = []byte(identity)
		config.CipherSuites = []dtls.CipherSuiteID{dtls.TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256}
		config.SessionStore = nil
	}
	return config, nil
}

func describe(conn *dtls.Conn, resumed bool) map[string]any {
	state, _ := conn.ConnectionState()
	found := map[string]any{"event": "association", "resumed": resumed}
	if binding, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32); err == nil {
		found["exporter"] = hex.EncodeToString(binding)
	}
	if len(state.PeerCertificates) > 0 {
		found["peer"] = len(state.PeerCertificates)
	}
	return found
}

func say(what map[string]any) {
	text, _ := json.Marshal(what)
	fmt.Println(string(text))
}

func runServer(host, port string, s settings) error {
	store := &sessions{kept: map[string]dtls.Session{}}
	config, err := s.config(true, store)
	if err != nil {
		return err
	}
	address, err := net.ResolveUDPAddr("udp", net.JoinHostPort(host, port))
	if err != nil {
		return err
	}
	listener, err := dtls.Listen("udp", address, config)
	if err != nil {
		return err
	}
	say(map[string]any{"ready": true, "port": address.Port})
	go func() {
		for {
			accepted, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(accepted.(*dtls.Conn), store, s.quiet)
		}
	}()
	_, err = io.Copy(io.Discard, os.Stdin)
	_ = listener.Close()
	return err
}

func serve(conn *dtls.Conn, store *sessions, quiet bool) {
	defer func() { _ = conn.Close() }()
	before := store.hits
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		if !quiet {
			say(map[string]any{"event": "refused", "error": err.Error()})
		}
		return
	}
	if !quiet {
		say(describe(conn, store.hits > before))
	}
	buffer := make([]byte, 8192)
	for {
		size, err := conn.Read(buffer)
		if err != nil {
			return
		}
		if _, err := conn.Write(buffer[:size]); err != nil {
			return
		}
	}
}

func runClient(host, port string, s settings) error {
	store := &sessions{kept: map[string]dtls.Session{}}
	lines := bufio.NewScanner(os.Stdin)
	for i := 0; i < s.times; i++ {
		if i > 0 && !lines.Scan() { // the driver says when the next one may begin
			break
		}
		config, err := s.config(false, store)
		if err != nil {
			return err
		}
		result, err := connectOnce(host, port, config, store)
		if err != nil {
			result = map[string]any{"event": "refused", "error": err.Error()}
		}
		say(result)
	}
	return nil
}

func connectOnce(host, port string, config *dtls.Config, store *sessions) (map[string]any, error) {
	address, err := net.ResolveUDPAddr("udp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	before := store.hits
	conn, err := dtls.Dial("udp", address, config)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	found := describe(conn, store.hits > before)
	buffer := make([]byte, 8192)
	if _, err := conn.Write([]byte("hello")); err != nil {
		return nil, err
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	size, err := conn.Read(buffer)
	if err != nil {
		return nil, err
	}
	found["echo"] = string(buffer[:size])
	return found, nil
}

func main() {
	var err error
	switch {
	case len(os.Args) >= 4 && os.Args[1] == "server":
		err = runServer(os.Args[2], os.Args[3], parse(os.Args[4:]))
	case len(os.Args) >= 4 && os.Args[1] == "client":
		err = runClient(os.Args[2], os.Args[3], parse(os.Args[4:]))
	case len(os.Args) == 2 && os.Args[1] == "version":
		info, _ := debug.ReadBuildInfo()
		for _, module := range info.Deps {
			if module.Path == "github.com/pion/dtls/v3" {
				fmt.Printf("{\"name\":\"pion\",\"version\":\"%s\"}\n", module.Version)
			}
		}
	default:
		err = fmt.Errorf("usage: dtls-peer server|client HOST PORT [flags]")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
