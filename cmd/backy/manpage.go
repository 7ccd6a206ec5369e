package main

import (
	_ "embed" // of a page
	"fmt"
	"slices"
	"strings"
)

// A man page is the command's help in the form that man reads, so that the two
// say the same. The help has sections, each a line that ends with a colon, and
// below it lines that are indented by three columns.
const helpIndent = "   "

// manSections are the sections that a page calls by another name.
var manSections = map[string]string{
	"USAGE": "SYNOPSIS", "GLOBAL OPTIONS": "OPTIONS", "EXIT CODES": "EXIT STATUS", "EXAMPLE": "EXAMPLES",
}

// pageName is the name of a command's page; command is "" for backy itself.
func pageName(command string) string {
	if command == "" {
		return "backy"
	}
	return "backy-" + command
}

// manPage is the page of a command in roff. day is its date, all are the
// commands that have one.
func manPage(command, help, day string, all []string) string {
	var others []string
	for _, c := range all {
		if c != command {
			others = append(others, fmt.Sprintf(".BR %s (1)", roff(pageName(c))))
		}
	}
	if command != "" {
		others = others[:1] // backy itself names the rest
	} else {
		others = append(others, ".BR backy\\-ceph (7)")
	}
	return roffPage(pageName(command), `1 %s "backy %s" "User Commands"`, help, day, others)
}

// cephPage is about releases of Ceph and keys, in the form of a help.
//
//go:embed pages/ceph.txt
var cephPage string

// roffPage is a page in roff: a title that names the day and backy's version, what
// it says in the form of a help, and which pages it names at the end.
func roffPage(page, title, help, day string, others []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s "+title+"\n.nh\n.ad l\n", roff(strings.ToUpper(page)), day, roff(versions().Backy))
	var section string
	var lines []string
	flush := func() {
		if section != "" {
			b.WriteString(manSection(section, page, lines))
		}
		lines = nil
	}
	for line := range strings.Lines(help) {
		line = strings.TrimRight(line, "\n")
		if name, ok := strings.CutSuffix(line, ":"); ok && !strings.HasPrefix(line, " ") {
			flush()
			section = name
			continue
		}
		lines = append(lines, strings.TrimPrefix(line, helpIndent))
	}
	flush()
	b.WriteString(".SH SEE ALSO\n")
	b.WriteString(strings.Join(others, ",\n") + "\n")
	return b.String()
}

func manSection(section, page string, lines []string) string {
	for len(lines) > 0 && lines[0] == "" {
		lines = lines[1:]
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	if len(lines) == 0 {
		return ""
	}
	name := section
	if other := manSections[section]; other != "" {
		name = other
	}
	head := ".SH " + name + "\n"
	switch name {
	case "NAME":
		_, what, _ := strings.Cut(lines[0], " - ")
		return head + fmt.Sprintf("%s \\- %s\n", roff(page), roff(what))
	case "SYNOPSIS":
		n := slices.Index(append(lines, ""), "") // the text begins behind the first empty line
		return head + ".nf\n.ft B\n" + roffLines(lines[:n]) + ".ft\n.fi\n" + manText(lines[n:])
	case "OPTIONS", "COMMANDS", "EXIT STATUS":
		return head + manList(lines)
	case "EXAMPLES":
		return head + manVerbatim(lines)
	}
	return head + manText(lines)
}

// manText is paragraphs; what is indented further stays as it is.
func manText(lines []string) string {
	var b strings.Builder
	var verbatim []string
	fresh := true // at the beginning of a paragraph, which has its macro
	flush := func() {
		if len(verbatim) > 0 {
			b.WriteString(".PP\n" + manVerbatim(verbatim))
			verbatim, fresh = nil, false
		}
	}
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, " "):
			verbatim = append(verbatim, line)
			continue
		case line == "":
			flush()
			if i+1 < len(lines) && !strings.HasPrefix(lines[i+1], " ") {
				b.WriteString(".PP\n")
				fresh = true
			}
			continue
		}
		flush()
		if !fresh && i > 0 && strings.HasPrefix(lines[i-1], " ") {
			b.WriteString(".PP\n")
		}
		fresh = false
		b.WriteString(roff(line) + "\n")
	}
	flush()
	return b.String()
}

func manVerbatim(lines []string) string {
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], helpIndent)
	}
	return ".RS 4\n.nf\n" + roffLines(lines) + ".fi\n.RE\n"
}

func roffLines(lines []string) string {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(roff(line) + "\n")
	}
	return b.String()
}

// manList is a table of terms and what they mean, with at least two columns of
// space between. A line of one part is the heading of what follows.
func manList(lines []string) string {
	var b strings.Builder
	for _, line := range lines {
		term, what, ok := strings.Cut(strings.TrimLeft(line, " "), "  ")
		switch {
		case line == "":
		case strings.HasPrefix(line, " "): // the term's line goes on
			b.WriteString(roff(strings.TrimLeft(line, " ")) + "\n")
		case ok:
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(term), roff(strings.TrimLeft(what, " ")))
		default:
			fmt.Fprintf(&b, ".SS %s\n", roff(line))
		}
	}
	return b.String()
}

// roff writes text so that it means itself. Dashes are those of commands, which
// can be pasted.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `"`, `\(dq`, `·`, `\(pc`, `…`, `...`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
