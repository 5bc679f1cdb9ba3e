package kith

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	dim      = 8
	count    = 500
	patience = 120 * time.Second
)

var background = context.Background()

// daemon is a kithd of this test's own.
type daemon struct {
	t         *testing.T
	run, data string
	process   *exec.Cmd
}

func start(t *testing.T) *daemon {
	shm := "/dev/shm"
	if syscall.Access(shm, 2) != nil {
		shm = ""
	}
	run, err := os.MkdirTemp(shm, "kith-go-")
	check(t, err)
	d := &daemon{t: t, run: run, data: t.TempDir()}
	t.Cleanup(func() {
		d.kill(syscall.SIGTERM)
		os.RemoveAll(run)
	})
	d.spawn()
	return d
}

func (d *daemon) spawn() {
	program := os.Getenv("KITH_TEST_KITHD")
	if program == "" {
		d.t.Skip("KITH_TEST_KITHD does not name kithd")
	}
	d.process = exec.Command(program, "--data", filepath.Join(d.data, "data"), "--run", d.run)
	d.process.Stderr = os.Stderr
	check(d.t, d.process.Start())
	until(d.t, "kithd serves", func() bool {
		return exec.Command(os.Getenv("KITH_TEST_KITH"), "--run", d.run, "stats", "--ready").Run() == nil
	})
}

func (d *daemon) kill(signal os.Signal) {
	if d.process != nil {
		d.process.Process.Signal(signal)
		d.process.Wait()
		d.process = nil
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time: ", what)
		}
	}
}

func want(t *testing.T, err error, code error) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Fatalf("%v, and not %v", err, code)
	}
}

func vectors() [][]float32 {
	random := rand.New(rand.NewSource(8))
	rows := make([][]float32, count)
	for i := range rows {
		rows[i] = make([]float32, dim)
		for j := range rows[i] {
			rows[i][j] = random.Float32()
		}
	}
	return rows
}

func fill(t *testing.T, d *daemon, name string) (*Index, [][]float32) {
	check(t, Create(background, name, CreateOptions{Dim: dim, Metric: L2, RunDir: d.run}))
	x, err := Open(background, name, OpenOptions{RunDir: d.run})
	check(t, err)
	t.Cleanup(func() { x.Close() })
	rows := vectors()
	w, err := x.NewWriter(background, 4, 32)
	check(t, err)
	defer w.Close()
	for i, v := range rows {
		check(t, w.UpsertPayload(background, fmt.Sprint(i), v, fmt.Sprintf(`{"n":%d,"even":%v}`, i, i%2 == 0)))
	}
	check(t, w.Flush(background))
	if w.Count != count || w.Epoch == 0 || w.Epoch != x.Epoch() {
		t.Fatalf("%d written, epoch %d of %d", w.Count, w.Epoch, x.Epoch())
	}
	return x, rows
}

func TestSearch(t *testing.T) {
	x, rows := fill(t, start(t), "points")
	for i := 0; i < count; i += 50 {
		found, err := x.Search(background, rows[i], 3, SearchOptions{Exact: true})
		check(t, err)
		if len(found.Hits) != 3 || found.Hits[0].ID != fmt.Sprint(i) || found.Hits[0].Distance > 1e-6 || found.Hits[1].Distance > found.Hits[2].Distance {
			t.Fatalf("%d: %+v", i, found)
		}
		near, err := x.SearchID(background, fmt.Sprint(i), 2, SearchOptions{Exact: true})
		check(t, err)
		if near.Hits[0].ID != found.Hits[1].ID || near.Hits[0].Distance != found.Hits[1].Distance {
			t.Fatalf("%+v and %+v", near, found)
		}
	}
	found, err := x.Search(background, rows[3], 5, SearchOptions{Filter: "even = true", Payloads: true, Ef: 64})
	check(t, err)
	for _, h := range found.Hits {
		if h.Payload != fmt.Sprintf(`{"even":true,"n":%s}`, h.ID) {
			t.Fatalf("%+v", h)
		}
	}
	out := make([]float32, dim)
	check(t, x.Get(background, "7", out))
	if fmt.Sprint(out) != fmt.Sprint(rows[7]) {
		t.Fatal(out)
	}
	stats, err := x.Stats(background)
	check(t, err)
	if stats.LiveCount != count || stats.Dim != dim || !stats.DaemonAlive || x.Dim() != dim {
		t.Fatalf("%+v", stats)
	}
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	d := start(t)
	x, rows := fill(t, d, "errors")
	_, err := x.Search(background, rows[0][:3], 3, SearchOptions{})
	want(t, err, Dimension)
	_, err = x.Search(background, nil, 3, SearchOptions{})
	want(t, err, Dimension)
	_, err = x.Search(background, rows[0], 3, SearchOptions{Filter: "n ="})
	want(t, err, BadFilter)
	var e *Error
	if !errors.As(err, &e) || e.Symbol() != "KITH_E_FILTER" || len(e.Text) < 20 {
		t.Fatalf("%#v", err)
	}
	_, err = x.Search(background, rows[0], 0, SearchOptions{})
	want(t, err, BadK)
	_, err = x.SearchID(background, "nobody", 3, SearchOptions{})
	want(t, err, NotFound)
	_, err = x.SearchID(background, "a\x00b", 3, SearchOptions{})
	want(t, err, BadID)
	_, err = x.Upsert(background, "a", []float32{float32(math.NaN()), 0, 0, 0, 0, 0, 0, 0})
	want(t, err, NotFinite)
	_, err = x.Upsert(background, "a", nil)
	want(t, err, Dimension)
	_, err = x.UpsertPayload(background, "a", rows[0], `{"n": }`)
	want(t, err, BadPayload)
	_, err = x.Delete(background, "nobody")
	want(t, err, NotFound)
	want(t, x.Get(background, "0", make([]float32, 2)), Dimension)
	_, err = Open(background, "nobody", OpenOptions{RunDir: d.run})
	want(t, err, NoCollection)
	want(t, Create(background, "errors", CreateOptions{Dim: dim, Metric: L2, RunDir: d.run}), Exists)
	want(t, Create(background, "a b", CreateOptions{Dim: dim, Metric: L2, RunDir: d.run}), Name)
	x.Close()
	x.Close()
	_, err = x.Search(background, rows[0], 3, SearchOptions{})
	want(t, err, ErrClosed)
}

func TestContexts(t *testing.T) {
	d := start(t)
	x, rows := fill(t, d, "contexts")
	cancelled, cancel := context.WithCancel(background)
	cancel()
	_, err := x.Search(cancelled, rows[0], 3, SearchOptions{})
	want(t, err, context.Canceled)
	_, err = x.Upsert(cancelled, "new", rows[0])
	want(t, err, context.Canceled)
	if there, err := x.Exists(background, "new"); err != nil || there {
		t.Fatal("a cancelled write was made: ", there, err)
	}
	short, stop := context.WithTimeout(background, 100*time.Millisecond)
	defer stop()
	want(t, x.WaitEpoch(short, x.Epoch()+1000), context.DeadlineExceeded)
	_, err = Open(short, "late", OpenOptions{RunDir: d.run, AttachWait: patience})
	want(t, err, context.DeadlineExceeded)

	long, stop := context.WithTimeout(background, patience)
	defer stop()
	found, err := x.Search(long, rows[0], 3, SearchOptions{})
	check(t, err)
	if found.Cut || found.Hits[0].ID != "0" {
		t.Fatalf("%+v", found)
	}
	seen, done := x.Epoch(), make(chan error)
	go func() { done <- x.WaitEpoch(long, seen+1) }()
	epoch, err := x.Upsert(long, "new", rows[1])
	check(t, err)
	check(t, <-done)
	if epoch <= seen {
		t.Fatal(epoch, seen)
	}
}

func TestSnapshots(t *testing.T) {
	x, rows := fill(t, start(t), "moments")
	then, err := x.Snapshot(background)
	check(t, err)
	_, err = x.Upsert(background, "new", rows[0])
	check(t, err)
	found, err := x.Search(background, rows[0], 2, SearchOptions{At: then, Exact: true})
	check(t, err)
	if found.Epoch != then.Epoch || found.Hits[0].ID != "0" || found.Hits[1].ID == "new" {
		t.Fatalf("%+v", found)
	}
	_, err = x.Search(background, rows[0], 2, SearchOptions{At: Snapshot{then.Epoch + 1000, then.Timeline}})
	want(t, err, NotYet)
}

// Goroutines share an index beside a writer, and it is closed under them. Run with -race by whoever has its runtime.
func TestGoroutines(t *testing.T) {
	x, rows := fill(t, start(t), "shared")
	var group sync.WaitGroup
	for g := 0; g < 4; g++ {
		group.Add(1)
		go func(g int) {
			defer group.Done()
			for i := g; ; i = (i + 1) % count {
				found, err := x.Search(background, rows[i], 1, SearchOptions{})
				if errors.Is(err, ErrClosed) {
					return
				}
				if err != nil || found.Hits[0].ID != fmt.Sprint(i) {
					t.Errorf("%d: %+v %v", i, found, err)
					return
				}
			}
		}(g)
	}
	far := make([]float32, dim)
	for i := 0; i < 100; i++ {
		far[0] = float32(100 + i)
		_, err := x.Upsert(background, "far", far)
		check(t, err)
	}
	w, err := x.NewWriter(background, 1, 10)
	check(t, err)
	x.Close()
	group.Wait()
	check(t, w.Upsert(background, "last", far)) // a writer keeps what it needs
	check(t, w.Flush(background))
	check(t, w.Close())
	want(t, w.Flush(background), ErrClosed)
}

func TestKithdDies(t *testing.T) {
	d := start(t)
	x, rows := fill(t, d, "lasting")
	w, err := x.NewWriter(background, 2, 1)
	check(t, err)
	defer w.Close()
	d.kill(syscall.SIGKILL)
	found, err := x.Search(background, rows[3], 1, SearchOptions{})
	check(t, err)
	if found.Hits[0].ID != "3" {
		t.Fatalf("%+v", found)
	}
	x.Upsert(background, "x", rows[0]) // of the connection that was there nobody knows
	_, err = x.Upsert(background, "x", rows[0])
	want(t, err, NoDaemon)
	for err = nil; err == nil; err = w.Upsert(background, "w", rows[0]) {
	}
	if !errors.Is(err, NoDaemon) && !errors.Is(err, UnknownOutcome) {
		t.Fatal(err)
	}
	d.spawn()
	until(t, "writes are taken again", func() bool {
		_, err := x.Upsert(background, "x", rows[0])
		return err == nil
	})
}
