package engine_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"backy/engine"
)

func TestRules(t *testing.T) {
	for _, tt := range []struct {
		metadata map[string]string
		exclude  bool
		keep     engine.Keep
		unclear  string // in the one sentence; "": none
		ignored  string // likewise
	}{
		{metadata: nil},
		{metadata: map[string]string{"owner": "me", "conf_rbd_cache": "false", "backyard": "x", "keep-daily": "7d"}},
		{metadata: map[string]string{"backy.exclude": "true"}, exclude: true},
		{metadata: map[string]string{"backy.exclude": "false"}},
		{metadata: map[string]string{"backy.exclude": "yes"}, unclear: `backy.exclude "yes"`},
		{metadata: map[string]string{"backy.keep-daily": "14"}, keep: engine.Keep{Daily: 14}},
		{metadata: map[string]string{"backy.keep-daily": "010"}, keep: engine.Keep{Daily: 10}},
		{metadata: map[string]string{"backy.keep-daily": "0", "backy.keep-yearly": "2"}, keep: engine.Keep{Yearly: 2}},
		{metadata: map[string]string{"backy.keep-within": "3h"}, keep: engine.Keep{Within: 3 * time.Hour}},
		{metadata: map[string]string{"backy.keep-within": "6mo"}, keep: engine.Keep{Within: 6 * 31 * 24 * time.Hour}},
		{metadata: map[string]string{"backy.keep-within": "0"}},
		{metadata: map[string]string{"backy.keep-within": "long"}, unclear: "backy.keep-within"},
		{metadata: map[string]string{"backy.keep-within": "1m"}, unclear: "months"},
		{metadata: map[string]string{"backy.keep-within": "30"}, unclear: "unit is missing"},
		{metadata: map[string]string{"backy.keep-daily": "-1"}, unclear: "backy.keep-daily"},
		{metadata: map[string]string{"backy.keep-daily": "7d"}, unclear: `backy.keep-daily "7d"`},
		{metadata: map[string]string{"backy.keep-daily": ""}, unclear: "backy.keep-daily"},
		{metadata: map[string]string{"backy.keep-daily": " 7"}, unclear: "backy.keep-daily"},
		{metadata: map[string]string{"backy.keep-dayly": "7"}, unclear: "backy.keep-dayly"},
		{metadata: map[string]string{"backy.Keep-daily": "7"}, unclear: "backy.Keep-daily"},
		{metadata: map[string]string{"backy.keepdaily": "7"}, unclear: "no such key"},
		{metadata: map[string]string{"backy.": "7"}, ignored: "no such key"},
		{metadata: map[string]string{"backy.kep-weekly": "7"}, unclear: "no such key"},
		{metadata: map[string]string{"backy.monthly": "7"}, unclear: "no such key"},
		{metadata: map[string]string{"backy.excluded": "false"}, unclear: "no such key"},
		{metadata: map[string]string{"backy.colour": "blue"}, ignored: `backy.colour "blue"`},
		{metadata: map[string]string{"backy.keep-fortnightly": "1"}, unclear: "no such key"},
		{metadata: map[string]string{"backy.freeze": "reboot"}, ignored: "no such key"},
		{metadata: map[string]string{"backy.min-age": "soon"}, ignored: "backy.min-age"},
	} {
		// What a level records of the metadata says the same.
		for _, metadata := range []map[string]string{tt.metadata, engine.RecordRules(tt.metadata)} {
			r := engine.ParseRules(metadata)
			if r.Exclude != tt.exclude || r.Keep() != tt.keep {
				t.Errorf("%v: exclude %v, keep %+v", metadata, r.Exclude, r.Keep())
			}
			for want, got := range map[string][]string{"!" + tt.unclear: r.Unclear, "?" + tt.ignored: r.Ignored} {
				want = want[1:]
				if len(got) > 1 || (want == "") != (len(got) == 0) || want != "" && !strings.Contains(got[0], want) {
					t.Errorf("%v: %q, want %q in it", metadata, got, want)
				}
			}
		}
	}
}

// An image's min-age shortens the run's and never lengthens it.
func TestRulesMinAge(t *testing.T) {
	for value, want := range map[string]time.Duration{"6h": 6 * time.Hour, "90m": 90 * time.Minute, "0": 0, "10y": 12 * time.Hour, "12h": 12 * time.Hour, "6": 0, "never": 0} {
		if got := engine.ParseRules(map[string]string{"backy.min-age": value}).MinAgeOf(12 * time.Hour); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
	if got := (engine.Rules{}).MinAgeOf(time.Hour); got != time.Hour {
		t.Errorf("without a rule: %v", got)
	}
}

// What a level records is bounded, and what did not fit is not understood, so
// that it never keeps less than the whole would.
func TestRecordRules(t *testing.T) {
	many := map[string]string{}
	for i := range 5000 {
		many[engine.RulePrefix+strings.Repeat("a", i%3000)+string(rune('a'+i%26))] = strings.Repeat("y", i)
	}
	many["backy.keep-daily"] = "7"
	for what, metadata := range map[string]map[string]string{
		"a long value": {"backy.keep-daily": strings.Repeat("0", 1<<20) + "7"},
		"a long key":   {"backy.keep-daily" + strings.Repeat("y", 1<<20): "7"},
		"many keys":    many,
		"a long one":   {"backy." + strings.Repeat("y", 1<<20) + "keep-daily": "7"},
		"not UTF-8":    {"backy.keep-daily": "7\xff", "backy.\xff": "\x00"},
	} {
		recorded := engine.RecordRules(metadata)
		text, err := json.Marshal(recorded)
		if err != nil || len(text) > 64<<10 {
			t.Errorf("%s: %d bytes, %v", what, len(text), err)
		}
		var read map[string]string
		if err := json.Unmarshal(text, &read); err != nil {
			t.Fatal(err)
		}
		if r := engine.ParseRules(read); len(r.Unclear) == 0 || r.Keep() != (engine.Keep{}) {
			t.Errorf("%s: it is understood as %+v", what, r.Keep())
		}
	}
	if got := engine.RecordRules(map[string]string{"owner": "me"}); got != nil {
		t.Errorf("of others' keys: %v", got)
	}
}
