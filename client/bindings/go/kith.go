// Package kith searches and updates collections that kithd keeps in shared memory, by libkith.
//
// A search runs in the calling process, on a read-only mapping of the collection: it asks nobody, and goes on when kithd is gone. Writes go to
// kithd; one that returned is durable and visible to every process.
//
// An Index is for all goroutines. A Writer is for one at a time.
//
// Contexts: every call looks at its context before it begins. A search takes the context's deadline along and is cut at it; a search that has
// begun does not hear of a cancellation (it takes microseconds). Waits, and a Writer's waits for answers, hear of both within 50 ms. A single
// write that was sent is not taken back: its context is looked at before it.
//
// Building needs kith.h and libkith: where they are in no place that the compiler looks at by itself,
//
//	CGO_CFLAGS="$(pkg-config --cflags kith)" CGO_LDFLAGS="$(pkg-config --libs kith)" go build
package kith

/*
#cgo LDFLAGS: -lkith
#include <stdlib.h>
#include <time.h>
#include <kith/kith.h>

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static struct kith_open_opts open_init(void)
{
    struct kith_open_opts o = KITH_OPEN_OPTS_INIT;
    return o;
}
static struct kith_search_opts search_init(void)
{
    struct kith_search_opts o = KITH_SEARCH_OPTS_INIT;
    return o;
}
static struct kith_search_info info_init(void)
{
    struct kith_search_info o = KITH_SEARCH_INFO_INIT;
    return o;
}
static struct kith_create_opts create_init(void)
{
    struct kith_create_opts o = KITH_CREATE_OPTS_INIT;
    return o;
}
static struct kith_stats stats_init(void)
{
    struct kith_stats o = KITH_STATS_INIT;
    return o;
}
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// ErrClosed is returned by calls on an Index that was closed.
var ErrClosed = errors.New("kith: the index is closed")

const slice = 50 * time.Millisecond // a wait looks at its context so often

func init() {
	have, want := LibraryVersion(), fmt.Sprintf("%d.%d.", C.KITH_VERSION_MAJOR, C.KITH_VERSION_MINOR)
	if !strings.HasPrefix(have, want) {
		panic("kith: libkith is version " + have + ", and this program was built with the header of " + want + "x; install both of one version")
	}
}

// LibraryVersion is that of the libkith that was loaded, as "0.1.0".
func LibraryVersion() string { return C.GoString(C.kith_version()) }

// Index is an open collection.
type Index struct {
	handle *C.kith
	users  atomic.Int64 // calls and writers under way, and 1 until Close; the last of them detaches
	closed atomic.Bool
	dim    int
}

// OpenOptions may be left zero.
type OpenOptions struct {
	RunDir     string        // "": $KITH_RUN, then /dev/shm/kith, then /run/kith
	AttachWait time.Duration // wait so long for the collection to appear
	Prefault   bool          // touch every page now, so that no search pays for it
}

func cString(s string, code Code) (*C.char, error) {
	if strings.IndexByte(s, 0) >= 0 {
		return nil, failed(C.int(code), nil, fmt.Sprintf("%q", s))
	}
	return C.CString(s), nil
}

func newError() *C.struct_kith_error {
	return (*C.struct_kith_error)(C.calloc(1, C.size_t(unsafe.Sizeof(C.struct_kith_error{}))))
}

func runDir(dir string) (*C.char, error) {
	if dir == "" {
		return nil, nil
	}
	return cString(dir, RunDir)
}

// Open attaches to a collection of the run directory, or, with a slash in name, to the segment at that path. It needs no daemon.
func Open(ctx context.Context, name string, o OpenOptions) (*Index, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cname, err := cString(name, Name)
	if err != nil {
		return nil, err
	}
	defer C.free(unsafe.Pointer(cname))
	dir, err := runDir(o.RunDir)
	if err != nil {
		return nil, err
	}
	defer C.free(unsafe.Pointer(dir))
	said := newError()
	defer C.free(unsafe.Pointer(said))
	opts := C.open_init()
	opts.run_dir = dir
	opts.error = said
	if o.Prefault {
		opts.prefault = 1
	}
	end := time.Now().Add(o.AttachWait)
	for {
		wait := time.Until(end)
		if wait < 0 {
			wait = 0
		}
		if wait > slice {
			wait = slice
		}
		opts.attach_wait_ms = C.uint32_t(wait.Milliseconds())
		var handle *C.kith
		rc := C.kith_open(cname, &opts, &handle)
		if rc == 0 {
			index := &Index{handle: handle, dim: int(C.kith_dim(handle))}
			index.users.Store(1)
			runtime.SetFinalizer(index, (*Index).Close)
			return index, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if code := Code(rc); (code != Timeout && code != NoCollection) || !time.Now().Before(end) {
			return nil, failed(rc, said, name)
		}
	}
}

// Close ends the index: later calls return ErrClosed. Calls and writers that are under way may end before it is detached. Always nil; a second one
// does nothing.
func (x *Index) Close() error {
	if x.closed.CompareAndSwap(false, true) {
		runtime.SetFinalizer(x, nil)
		x.release()
	}
	return nil
}

// use keeps the handle from being closed until release.
func (x *Index) use(ctx context.Context) (*C.kith, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for {
		n := x.users.Load()
		if n == 0 || x.closed.Load() {
			return nil, ErrClosed
		}
		if x.users.CompareAndSwap(n, n+1) {
			return x.handle, nil
		}
	}
}

func (x *Index) release() {
	if x.users.Add(-1) == 0 {
		C.kith_close(x.handle)
	}
}

// Dim is the number of dimensions.
func (x *Index) Dim() int { return x.dim }

// Hit is a neighbour. Distances: l2 squared, 1 - cos, 1 - dot; smaller is nearer.
type Hit struct {
	ID       string
	Distance float32
	Payload  string // JSON, where payloads were asked for and the id has one
}

// Snapshot is a moment of a collection, to be read again later: two numbers, for any process. It pins nothing; once something that it saw is
// gone, reading at it is Stale. Zero: now.
type Snapshot struct{ Epoch, Timeline uint64 }

// SearchOptions may be left zero.
type SearchOptions struct {
	Ef       int     // breadth of the walk; 0: max(100, k), or as Recall says
	Exact    bool    // compare with every vector
	Recall   float64 // a share of the true neighbours that ef is chosen for
	Filter   string  // a condition on payloads
	Strict   bool    // BadFilter when nothing has a field of the filter
	Payloads bool
	At       Snapshot
}

// Found is what a search found, nearest first.
type Found struct {
	Hits  []Hit
	Epoch uint64 // the snapshot that was searched
	Ef    int
	Cut   bool // the deadline cut the walk: these are the best so far
}

type results struct{ r *C.kith_results }

// Results grow to what searches need, and are used again.
var pool sync.Pool

func take() (*results, error) {
	if r, _ := pool.Get().(*results); r != nil {
		return r, nil
	}
	r := &results{C.kith_results_new()}
	if r.r == nil {
		return nil, failed(-12, nil, "")
	}
	runtime.SetFinalizer(r, func(r *results) { C.kith_results_free(r.r) })
	return r, nil
}

func (r *results) found(n int, payloads bool) *Found {
	f := &Found{Hits: make([]Hit, n)}
	info := C.info_init()
	C.kith_results_info(r.r, &info)
	f.Epoch, f.Ef, f.Cut = uint64(info.epoch), int(info.ef), info.deadline_hit != 0
	if n == 0 {
		return f
	}
	distances := make([]float32, n)
	C.kith_results_distances(r.r, (*C.float)(&distances[0]), C.uint32_t(n))
	block := make([]byte, C.kith_results_ids(r.r, nil, 0))
	C.kith_results_ids(r.r, (*C.char)(unsafe.Pointer(&block[0])), C.size_t(len(block)))
	ids := string(block)
	for i := range f.Hits {
		end := strings.IndexByte(ids, 0)
		f.Hits[i] = Hit{ID: ids[:end], Distance: distances[i]}
		ids = ids[end+1:]
		if payloads {
			f.Hits[i].Payload = C.GoString(C.kith_results_payload(r.r, C.uint32_t(i)))
		}
	}
	return f
}

// search runs one call with the options in C's form, and reads what it found.
func (x *Index) search(ctx context.Context, o SearchOptions, about string, call func(*C.kith, *C.struct_kith_search_opts, *C.kith_results) C.int) (*Found, error) {
	opts := C.search_init()
	opts.ef = C.uint32_t(o.Ef)
	opts.target_recall = C.double(o.Recall)
	opts.at.epoch, opts.at.timeline = C.uint64_t(o.At.Epoch), C.uint64_t(o.At.Timeline)
	if o.Exact {
		opts.exact = 1
	}
	if o.Strict {
		opts.strict = 1
	}
	if o.Payloads {
		opts.payloads = 1
	}
	if o.Filter != "" {
		filter, err := cString(o.Filter, BadFilter)
		if err != nil {
			return nil, err
		}
		defer C.free(unsafe.Pointer(filter))
		opts.filter = filter
		opts.error = newError()
		defer C.free(unsafe.Pointer(opts.error))
	}
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		if left < 1 {
			left = 1
		}
		opts.deadline_ns = C.monotonic_ns() + C.uint64_t(left)
	}
	r, err := take()
	if err != nil {
		return nil, err
	}
	defer pool.Put(r)
	handle, err := x.use(ctx)
	if err != nil {
		return nil, err
	}
	rc := call(handle, &opts, r.r)
	x.release()
	if rc < 0 {
		return nil, failed(rc, opts.error, about)
	}
	f := r.found(int(rc), o.Payloads)
	if f.Cut {
		return f, context.DeadlineExceeded
	}
	return f, nil
}

// Search finds up to k nearest neighbours of query, in one snapshot. When the context's deadline cuts it, it returns the best so far together with
// context.DeadlineExceeded.
func (x *Index) Search(ctx context.Context, query []float32, k int, o SearchOptions) (*Found, error) {
	if len(query) == 0 {
		return nil, failed(C.int(Dimension), nil, "an empty query")
	}
	about := ""
	if len(query) != x.dim {
		about = fmt.Sprintf("a query of %d dimensions for a collection of %d", len(query), x.dim)
	}
	return x.search(ctx, o, about, func(h *C.kith, opts *C.struct_kith_search_opts, r *C.kith_results) C.int {
		return C.kith_search(h, (*C.float)(&query[0]), C.size_t(len(query)), C.uint32_t(k), opts, r)
	})
}

// SearchID finds neighbours of a stored vector, itself excluded.
func (x *Index) SearchID(ctx context.Context, id string, k int, o SearchOptions) (*Found, error) {
	cid, err := cString(id, BadID)
	if err != nil {
		return nil, err
	}
	defer C.free(unsafe.Pointer(cid))
	return x.search(ctx, o, fmt.Sprintf("%q", id), func(h *C.kith, opts *C.struct_kith_search_opts, r *C.kith_results) C.int {
		return C.kith_search_id(h, cid, C.uint32_t(k), opts, r)
	})
}

// Get copies the vector of id into out, which has Dim elements.
func (x *Index) Get(ctx context.Context, id string, out []float32) error {
	if len(out) != x.dim {
		return failed(C.int(Dimension), nil, fmt.Sprintf("room for %d floats, for a vector of %d", len(out), x.dim))
	}
	return x.withID(ctx, id, func(h *C.kith, cid *C.char) C.int {
		return C.kith_get(h, cid, (*C.float)(&out[0]), C.size_t(len(out)), nil)
	})
}

// Exists tells whether id is there.
func (x *Index) Exists(ctx context.Context, id string) (bool, error) {
	var there C.int
	err := x.withID(ctx, id, func(h *C.kith, cid *C.char) C.int {
		there = C.kith_exists(h, cid)
		return there
	})
	return there == 1, err
}

func (x *Index) withID(ctx context.Context, id string, call func(*C.kith, *C.char) C.int) error {
	cid, err := cString(id, BadID)
	if err != nil {
		return err
	}
	defer C.free(unsafe.Pointer(cid))
	handle, err := x.use(ctx)
	if err != nil {
		return err
	}
	rc := call(handle, cid)
	x.release()
	if rc < 0 {
		return failed(rc, nil, fmt.Sprintf("%q", id))
	}
	return nil
}

// Snapshot is one of now.
func (x *Index) Snapshot(ctx context.Context) (Snapshot, error) {
	handle, err := x.use(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	defer x.release()
	var s C.struct_kith_snapshot
	if rc := C.kith_snapshot(handle, &s); rc < 0 {
		return Snapshot{}, failed(rc, nil, "")
	}
	return Snapshot{uint64(s.epoch), uint64(s.timeline)}, nil
}

// Epoch is the last one that is visible; 0 when the collection is gone, or the index closed.
func (x *Index) Epoch() uint64 {
	handle, err := x.use(context.Background())
	if err != nil {
		return 0
	}
	defer x.release()
	return uint64(C.kith_epoch(handle))
}

// Stats are some figures of a collection.
type Stats struct {
	Epoch, LiveCount, BytesTaken, DurableEpoch uint64
	Dim                                        int
	DaemonAlive                                bool
}

// Stats asks the segment, and the socket whether kithd is there.
func (x *Index) Stats(ctx context.Context) (Stats, error) {
	handle, err := x.use(ctx)
	if err != nil {
		return Stats{}, err
	}
	defer x.release()
	s := C.stats_init()
	if rc := C.kith_stats(handle, &s); rc < 0 {
		return Stats{}, failed(rc, nil, "")
	}
	return Stats{uint64(s.epoch), uint64(s.live_count), uint64(s.bytes_taken), uint64(s.durable_epoch), int(s.dim), s.daemon_alive != 0}, nil
}

// WaitEpoch sleeps until epoch is visible, or the context ends. It asks no daemon.
func (x *Index) WaitEpoch(ctx context.Context, epoch uint64) error {
	for {
		handle, err := x.use(ctx)
		if err != nil {
			return err
		}
		rc := C.kith_wait_epoch(handle, C.uint64_t(epoch), C.int(slice.Milliseconds()))
		x.release()
		if rc == 0 {
			return nil
		}
		if Code(rc) != Timeout {
			return failed(rc, nil, "")
		}
	}
}

// Metric says what is near.
type Metric int

// The metrics.
const (
	L2     Metric = C.KITH_METRIC_L2
	Cosine Metric = C.KITH_METRIC_COSINE
	IP     Metric = C.KITH_METRIC_IP
)

// CreateOptions: dimension and metric have to be given; the rest may be left zero.
type CreateOptions struct {
	Dim            int
	Metric         Metric
	M              int
	EfConstruction int
	MaxVectors     int
	RunDir         string
}

// Create asks kithd for a new collection.
func Create(ctx context.Context, name string, o CreateOptions) error {
	opts := C.create_init()
	opts.dim, opts.metric = C.uint32_t(o.Dim), C.uint32_t(o.Metric)
	opts.m, opts.ef_construction, opts.max_vectors = C.uint32_t(o.M), C.uint32_t(o.EfConstruction), C.uint32_t(o.MaxVectors)
	return named(ctx, name, o.RunDir, func(cname, dir *C.char, said *C.struct_kith_error) C.int {
		opts.run_dir, opts.error = dir, said
		return C.kith_create(cname, &opts)
	})
}

// Drop removes a collection and its log for good.
func Drop(ctx context.Context, name, dir string) error {
	return named(ctx, name, dir, func(cname, dir *C.char, said *C.struct_kith_error) C.int {
		return C.kith_drop(cname, dir, said)
	})
}

func named(ctx context.Context, name, dir string, call func(cname, dir *C.char, said *C.struct_kith_error) C.int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	cname, err := cString(name, Name)
	if err != nil {
		return err
	}
	defer C.free(unsafe.Pointer(cname))
	cdir, err := runDir(dir)
	if err != nil {
		return err
	}
	defer C.free(unsafe.Pointer(cdir))
	said := newError()
	defer C.free(unsafe.Pointer(said))
	if rc := call(cname, cdir, said); rc < 0 {
		return failed(rc, said, name)
	}
	return nil
}
