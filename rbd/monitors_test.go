package rbd

import (
	"net"
	"reflect"
	"strings"
	"testing"
)

func TestParseMonHost(t *testing.T) {
	either := []string{"3300", "6789"}
	for s, want := range map[string][]monitor{
		"":                              nil,
		" , ":                           nil,
		"10.0.0.1":                      {{"10.0.0.1", either}},
		"mon.example":                   {{"mon.example", either}},
		"mon.example:6789":              {{"mon.example", []string{"6789"}}},
		"a, b;c d":                      {{"a", either}, {"b", either}, {"c", either}, {"d", either}},
		"10.0.0.1:6789/0":               {{"10.0.0.1", []string{"6789"}}},
		"v2:10.0.0.1:3300/0":            {{"10.0.0.1", []string{"3300"}}},
		"[v2:10.0.0.1:3300/0]":          {{"10.0.0.1", []string{"3300"}}},
		"[v2:127.0.0.1:9,v1:h:10],x:11": {{"127.0.0.1", []string{"9"}}, {"h", []string{"10"}}, {"x", []string{"11"}}},
		"fd00::1":                       {{"fd00::1", either}},
		"[fd00::1]":                     {{"fd00::1", either}},
		"[fd00::1]:6789":                {{"fd00::1", []string{"6789"}}},
		"[v2:[fd00::1]:3300/0,v1:[fd00::1]:6789/0]": {{"fd00::1", []string{"3300"}}, {"fd00::1", []string{"6789"}}},
	} {
		if got := parseMonHost(s); !reflect.DeepEqual(got, want) {
			t.Errorf("mon_host %q: %v, want %v", s, got, want)
		}
	}
}

func TestUnresolved(t *testing.T) {
	for hosts, want := range map[string]string{
		"127.0.0.1,localhost:6789,[::1]:9": "",
		"127.0.0.1,no-such-host.invalid":   "no-such-host.invalid does not resolve",
	} {
		if got := unresolved(t.Context(), parseMonHost(hosts)); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q in it", hosts, got, want)
		}
	}
}

func TestKnock(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	got := knock(t.Context(), parseMonHost(silent.Addr().String()+",127.0.0.1:1"))
	want := silent.Addr().String() + " can be reached, but does not answer, 127.0.0.1:1: connection refused"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
