package hints

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParse(t *testing.T) {
	two := []Extent{{0, 4194304, true}, {4194304, 65536, false}}
	for _, test := range []struct {
		name, input string
		want        []Extent
	}{
		{"JSON", `[{"offset":0,"length":4194304,"exists":"true"},{"offset":4194304,"length":65536,"exists":"false"}]`, two},
		{"JSON with booleans", `[{"offset":0,"length":4194304,"exists":true},{"offset":4194304,"length":65536,"exists":false}]`, two},
		{"pretty JSON", "[\n    {\n        \"offset\": 0,\n        \"length\": 4194304,\n        \"exists\": \"true\"\n    },\n    {\n        \"offset\": 4194304,\n        \"length\": 65536,\n        \"exists\": \"false\"\n    }\n]\n\n", two},
		{"JSON with fields in another order", `[{"exists":"true","length":2,"offset":1}]`, []Extent{{1, 2, true}}},
		{"JSON of no difference", "[]", nil},
		{"pretty JSON of no difference", "[]\n\n", nil},
		{"JSON behind white space", "\n \t\r[ ]", nil},
		{"table", "Offset   Length   Type\n0        4194304  data\n4194304  65536    zero\n", two},
		{"table with padding", "Offset         Length   Type\n0              4194304  data \n4194304        65536    zero \n", two},
		{"table with returns", "Offset Length Type\r\n0 4194304 data\r\n4194304 65536 zero\r\n", two},
		{"table of nothing", "Offset  Length  Type\n", nil},
		{"greatest extent", `[{"offset":9223372036854775806,"length":1,"exists":"true"}]`, []Extent{{1<<63 - 2, 1, true}}},
		{"unsorted and overlapping", `[{"offset":5,"length":5,"exists":true},{"offset":0,"length":7,"exists":true},{"offset":0,"length":7,"exists":true}]`, []Extent{{5, 5, true}, {0, 7, true}, {0, 7, true}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for kind, r := range map[string]io.Reader{
				"at once":      strings.NewReader(test.input),
				"byte by byte": iotest.OneByteReader(strings.NewReader(test.input)),
			} {
				got, err := Parse(r)
				if err != nil || !reflect.DeepEqual(got, test.want) {
					t.Errorf("%s: got %v, %v, want %v", kind, got, err, test.want)
				}
			}
		})
	}
}

func TestParseRefusesAndNamesThePlace(t *testing.T) {
	const table = "Offset  Length  Type\n0  1  data\n"
	for _, test := range []struct {
		name, input string
		line        int
		offset      int64
	}{
		{"nothing at all", "", 0, 0},
		{"white space", "  \n", 0, 0},
		{"XML", "<extents></extents>", 1, 0},
		{"an error message", "rbd: error opening image x: (2) No such file or directory\n", 1, 0},
		{"a table without its header", "0  1  data\n", 1, 0},
		{"a table behind white space", "\n" + table, 0, 1},
		{"an object", `{"offset":0,"length":1,"exists":true}`, 1, 0},

		{"header cut off", "Offset  Length", 1, 0},
		{"header without its newline", "Offset  Length  Type", 1, 0},
		{"row without its newline", table + "1  1  data", 3, 0},
		{"row cut off", table + "1  1", 3, 0},
		{"empty row", table + "\n", 3, 0},
		{"fourth column", table + "1  1  data  1\n", 3, 0},
		{"unknown type", table + "1  1  hole\n", 3, 0},
		{"negative offset", table + "-1  1  data\n", 3, 0},
		{"signed offset", table + "+1  1  data\n", 3, 0},
		{"hexadecimal length", table + "1  0x1  data\n", 3, 0},
		{"length 0", table + "1  0  data\n", 3, 0},
		{"offset 1<<63", table + "9223372036854775808  1  data\n", 3, 0},
		{"end 1<<63", table + "9223372036854775807  1  data\n", 3, 0},
		{"endless line", table + strings.Repeat(" ", maxLine) + "1 1 data\n", 3, 0},
		{"a second table", table + table, 3, 0},

		{"list cut off", `[`, 0, 1},
		{"list cut off in an extent", `[{"offset":0,"len`, 0, 12},
		{"list cut off behind an extent", `[{"offset":0,"length":1,"exists":true}`, 0, 38},
		{"list cut off behind a comma", `[{"offset":0,"length":1,"exists":true},`, 0, 38},
		{"comma too many", `[{"offset":0,"length":1,"exists":true},]`, 0, 38},
		{"comma missing", `[{"offset":0,"length":1,"exists":true} {"offset":1,"length":1,"exists":true}]`, 0, 38},
		{"second list", `[][]`, 0, 2},
		{"message behind the list", "[]\nrbd: diff error: (2) No such file or directory\n", 0, 2},
		{"list in a list", `[[]]`, 0, 1},
		{"number in the list", `[ 1]`, 0, 2},
		{"null in the list", `[null]`, 0, 1},
		{"empty extent", `[{}]`, 0, 1},
		{"no offset", `[ {"length":1,"exists":true}]`, 0, 2},
		{"no length", `[{"offset":1,"exists":true}]`, 0, 1},
		{"no exists", `[{"offset":1,"length":1}]`, 0, 1},
		{"offset twice", `[{"offset":1,"offset":2,"length":1,"exists":true}]`, 0, 13},
		{"exists twice", `[{"offset":1,"length":1,"exists":false,"exists":true}]`, 0, 39},
		{"unknown field", `[{"offset":1,"size":1,"exists":true}]`, 0, 13},
		{"other case", `[{"Offset":1,"length":1,"exists":true}]`, 0, 2},
		{"number as a string", `[{"offset":"1","length":1,"exists":true}]`, 0, 11},
		{"negative number", `[{"offset":-1,"length":1,"exists":true}]`, 0, 11},
		{"fraction", `[{"offset":1.0,"length":1,"exists":true}]`, 0, 11},
		{"exponent", `[{"offset":1e3,"length":1,"exists":true}]`, 0, 11},
		{"number 1<<63", `[{"offset":1,"length":9223372036854775808,"exists":true}]`, 0, 22},
		{"JSON length 0", `[{"offset":1,"length":0,"exists":true}]`, 0, 1},
		{"JSON end 1<<63", `[{"offset":9223372036854775807,"length":1,"exists":true}]`, 0, 1},
		{"exists as a number", `[{"offset":1,"length":1,"exists":1}]`, 0, 33},
		{"exists as another word", `[{"offset":1,"length":1,"exists":"yes"}]`, 0, 33},
		{"exists as null", `[{"offset":1,"length":1,"exists":null}]`, 0, 33},
		{"nested value", `[{"offset":{},"length":1,"exists":true}]`, 0, 11},
	} {
		t.Run(test.name, func(t *testing.T) {
			extents, err := Parse(strings.NewReader(test.input))
			var syntax *SyntaxError
			if !errors.As(err, &syntax) {
				t.Fatalf("got %v, %v, want a *SyntaxError", extents, err)
			}
			if extents != nil {
				t.Errorf("extents %v beside the error", extents)
			}
			if syntax.Line != test.line || syntax.Offset != test.offset {
				t.Errorf("place: line %d, byte %d, want line %d, byte %d: %v", syntax.Line, syntax.Offset, test.line, test.offset, err)
			}
		})
	}
}

func TestParsePassesOnReadErrors(t *testing.T) {
	broken := errors.New("broken disk")
	for _, input := range []string{"", "Offset", "Offset  Length  Type\n1 1", "[", `[{"offset":`, "[]"} {
		extents, err := Parse(io.MultiReader(strings.NewReader(input), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) || extents != nil {
			t.Errorf("input %q: got %v, %v", input, extents, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`[{"offset":0,"length":4194304,"exists":"true"},{"offset":4194304,"length":65536,"exists":false}]`)
	f.Add("[\n    {\n        \"offset\": 0,\n        \"length\": 1,\n        \"exists\": \"true\"\n    }\n]\n\n")
	f.Add("Offset   Length   Type\n0        4194304  data\n4194304  65536    zero\n")
	f.Add("[]")
	f.Add("[{},]")
	f.Add(`[{"offset":1}{"length":1}]`)
	f.Fuzz(func(t *testing.T, input string) {
		extents, err := Parse(strings.NewReader(input))
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || extents != nil {
				t.Fatalf("got %v, %v", extents, err)
			}
			if syntax.Offset < 0 || syntax.Offset > int64(len(input)) || syntax.Line < 0 || syntax.Line > strings.Count(input, "\n")+1 {
				t.Fatalf("place out of the input: %+v", syntax)
			}
			return
		}
		if strings.TrimLeft(input, " \t\r\n")[0] == '[' && !json.Valid([]byte(input)) {
			t.Fatalf("took invalid JSON")
		}
		// What was parsed, printed as rbd does, parses the same in both forms.
		table := "Offset  Length  Type\n"
		list := []string{}
		for _, e := range extents {
			if err := Check([]Extent{e}, 1<<63-1); err != nil {
				t.Fatal(err)
			}
			table += fmt.Sprintf("%d  %d  %s\n", e.Offset, e.Length, map[bool]string{true: "data", false: "zero"}[e.Exists])
			list = append(list, fmt.Sprintf(`{"offset":%d,"length":%d,"exists":"%t"}`, e.Offset, e.Length, e.Exists))
		}
		for _, again := range []string{table, "[" + strings.Join(list, ",") + "]"} {
			if got, err := Parse(strings.NewReader(again)); err != nil || !reflect.DeepEqual(got, extents) {
				t.Fatalf("%q: got %v, %v, want %v", again, got, err, extents)
			}
		}
	})
}
