//go:build unix

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// writeTable prints the table, and puts it into the run's folder as Markdown.
func (r *run) writeTable() error {
	file, err := os.Create(filepath.Join(r.out, "table.md"))
	if err != nil {
		return err
	}
	rows := r.table()
	return errors.Join(r.printText(os.Stdout, rows), r.printMarkdown(file, rows), file.Close())
}

// table has a head, and a line for each row.
func (r *run) table() [][]string {
	subjects := r.subjects()
	head := append([]string{"part", "measurement", "unit"}, subjects...)
	lines := [][]string{append(head, "ratio", "aim")}
	for _, at := range r.rows() {
		line := []string{at.Part, at.name(), at.Unit}
		for _, subject := range subjects {
			line = append(line, figure(r.median(at, subject)))
		}
		ratio := ""
		floor, _ := r.median(at, floorSubject)
		if host, has := r.median(at, hostSubject); has && floor != 0 {
			ratio = fmt.Sprintf("%.2f", host/floor)
		}
		lines = append(lines, append(line, ratio, at.Aim))
	}
	return lines
}

// under tells what the figures of the table are.
func (r *run) under() string {
	return fmt.Sprintf("%s, %s; medians of %d rounds", r.machine, r.machine.System, r.rounds)
}

func (r *run) printText(w io.Writer, lines [][]string) error {
	fmt.Fprintf(w, "%s\n\n", r.under())
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, line := range lines {
		fmt.Fprintln(columns, strings.Join(line, "\t")+"\t")
	}
	return columns.Flush()
}

func (r *run) printMarkdown(w io.Writer, lines [][]string) error {
	text := strings.Builder{}
	fmt.Fprintf(&text, "%s\n\n", r.under())
	for i, line := range lines {
		fmt.Fprintf(&text, "| %s |\n", strings.Join(line, " | "))
		if i == 0 {
			text.WriteString("|---|---|---|" + strings.Repeat("--:|", len(line)-4) + "---|\n")
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// figure is a value with about three digits that tell something.
func figure(value float64, has bool) string {
	switch {
	case !has:
		return ""
	case value >= 100 || value <= -100:
		return fmt.Sprintf("%.0f", value)
	case value >= 10 || value <= -10:
		return fmt.Sprintf("%.1f", value)
	}
	return fmt.Sprintf("%.2f", value)
}
