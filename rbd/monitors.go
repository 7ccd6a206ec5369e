package rbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// lookTime is how long a look at what keeps a connection from being made may take.
const lookTime = time.Second

// monitor is one address that a mon_host names.
type monitor struct {
	host string   // a name or an IP address
	port []string // those that it may listen at
}

var (
	monWord  = regexp.MustCompile(`[^\s,;]+`)
	monProto = regexp.MustCompile(`^(v1|v2|any):`)
	monNonce = regexp.MustCompile(`/\d+$`)
	monPort  = regexp.MustCompile(`^(.+):(\d+)$`)
)

// parseMonHost takes a mon_host apart: names and addresses, with and without
// ports, protocols and nonces, in brackets by monitor or in none.
func parseMonHost(s string) (list []monitor) {
	for _, word := range monWord.FindAllString(s, -1) {
		// A monitor's group has its brackets around the whole list, an IPv6 address its own.
		if inner := strings.TrimPrefix(word, "["); monProto.MatchString(inner) {
			word = inner
		}
		if strings.Count(word, "]") > strings.Count(word, "[") {
			word = strings.TrimSuffix(word, "]")
		}
		word = monNonce.ReplaceAllString(monProto.ReplaceAllString(word, ""), "")
		m := monitor{host: word, port: []string{"3300", "6789"}}
		if _, err := netip.ParseAddr(word); err != nil { // IPv6 without brackets has no port
			if parts := monPort.FindStringSubmatch(word); parts != nil {
				m.host, m.port = parts[1], parts[2:]
			}
		}
		m.host = strings.Trim(m.host, "[]")
		if m.host != "" {
			list = append(list, m)
		}
	}
	return list
}

// unresolved says which monitor's name has no address, and why; "" if all have
// one. One such name is enough for librados to try none.
func unresolved(ctx context.Context, list []monitor) string {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	for _, m := range list {
		if _, err := netip.ParseAddr(m.host); err == nil {
			continue
		}
		_, err := net.DefaultResolver.LookupHost(ctx, m.host)
		var dns *net.DNSError
		switch {
		case err == nil:
		case ctx.Err() != nil || errors.As(err, &dns) && dns.IsTimeout:
			return fmt.Sprintf("the monitor's name %s does not resolve: no name server answers", m.host)
		case errors.As(err, &dns) && dns.IsNotFound:
			return fmt.Sprintf("the monitor's name %s does not resolve: there is no such name", m.host)
		default:
			return fmt.Sprintf("the monitor's name %s does not resolve: %v", m.host, err)
		}
	}
	return ""
}

// knock tries to reach each monitor, and says how that went.
func knock(ctx context.Context, list []monitor) string {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	said := make([]string, len(list))
	var tries sync.WaitGroup
	for i, m := range list {
		tries.Add(1)
		go func() {
			defer tries.Done()
			said[i] = knockAt(ctx, m)
		}()
	}
	tries.Wait()
	return strings.Join(said, ", ")
}

func knockAt(ctx context.Context, m monitor) (how string) {
	for _, port := range m.port {
		address := net.JoinHostPort(m.host, port)
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			_ = conn.Close() // nothing was written
			return address + " can be reached, but does not answer"
		}
		var errno syscall.Errno
		switch {
		case how != "": // what the first port said stands for both
		case errors.As(err, &errno):
			how = fmt.Sprintf("%s: %v", address, errno)
		default:
			how = address + " cannot be reached"
		}
	}
	return how
}
