package kith

/*
#include <stdlib.h>
#include <kith/kith.h>

static struct kith_commit commit_init(void)
{
    struct kith_commit o = KITH_COMMIT_INIT;
    return o;
}
*/
import "C"

import (
	"context"
	"fmt"
	"unsafe"
)

// Upsert puts a vector; the payload of the id stays as it is. It returns the epoch at which every reader sees it.
func (x *Index) Upsert(ctx context.Context, id string, vector []float32) (uint64, error) {
	var epoch C.uint64_t
	err := x.withID(ctx, id, func(h *C.kith, cid *C.char) C.int {
		return C.kith_upsert(h, cid, floats(vector), C.size_t(len(vector)), &epoch)
	})
	return uint64(epoch), err
}

// UpsertPayload puts a vector and a payload, a JSON object; "": the id has none from now on.
func (x *Index) UpsertPayload(ctx context.Context, id string, vector []float32, payload string) (uint64, error) {
	var epoch C.uint64_t
	text, err := payloadText(payload)
	if err != nil {
		return 0, err
	}
	defer C.free(unsafe.Pointer(text))
	err = x.withID(ctx, id, func(h *C.kith, cid *C.char) C.int {
		return C.kith_upsert_payload(h, cid, floats(vector), C.size_t(len(vector)), text, &epoch)
	})
	return uint64(epoch), err
}

// Delete removes id; NotFound when it was not there.
func (x *Index) Delete(ctx context.Context, id string) (uint64, error) {
	var epoch C.uint64_t
	err := x.withID(ctx, id, func(h *C.kith, cid *C.char) C.int { return C.kith_delete(h, cid, &epoch) })
	return uint64(epoch), err
}

var noFloat float32

// floats points at the first of them; of none, at something: the library looks at the length.
func floats(v []float32) *C.float {
	if len(v) == 0 {
		return (*C.float)(&noFloat)
	}
	return (*C.float)(&v[0])
}

// payloadText is nil for "", and else checked: the library says here what is wrong with it, and where.
func payloadText(payload string) (*C.char, error) {
	if payload == "" {
		return nil, nil
	}
	text, err := cString(payload, BadPayload)
	if err != nil {
		return nil, err
	}
	said := newError()
	defer C.free(unsafe.Pointer(said))
	if rc := C.kith_payload_check(C.KITH_PAYLOAD_REPLACE, text, said); rc < 0 {
		C.free(unsafe.Pointer(text))
		return nil, failed(rc, said, "")
	}
	return text, nil
}

// Writer sends many writes in batches, ahead of their answers. It is for one goroutine at a time. The first write that is refused ends it: later
// calls return that error. Close it, also after an error.
type Writer struct {
	index *Index
	pipe  *C.kith_pipe
	batch *C.kith_batch
	size  int
	sent  map[uint64]int // batches on their way, and what each holds
	next  uint64
	err   error

	Count int    // writes that were acknowledged
	Epoch uint64 // the highest of theirs
}

// NewWriter makes a writer with up to depth batches (1 to 4096; 8 is enough for most) of size writes (256) on their way. The index
// may be closed meanwhile: the writer keeps what it needs.
func (x *Index) NewWriter(ctx context.Context, depth, size int) (*Writer, error) {
	if size < 1 {
		return nil, failed(C.int(Parameter), nil, fmt.Sprintf("a batch of %d writes", size))
	}
	handle, err := x.use(ctx) // until Close
	if err != nil {
		return nil, err
	}
	w := &Writer{index: x, size: size, sent: map[uint64]int{}}
	if rc := C.kith_pipe_open(handle, C.uint32_t(depth), &w.pipe); rc < 0 {
		x.release()
		return nil, failed(rc, nil, "")
	}
	w.batch = C.kith_batch_new(handle)
	if w.batch == nil {
		C.kith_pipe_close(w.pipe)
		x.release()
		return nil, failed(-12, nil, "")
	}
	return w, nil
}

// Upsert puts a vector; the payload of the id stays.
func (w *Writer) Upsert(ctx context.Context, id string, vector []float32) error {
	return w.add(ctx, id, func(cid *C.char) C.int {
		return C.kith_batch_upsert(w.batch, cid, floats(vector), C.size_t(len(vector)))
	})
}

// UpsertPayload puts a vector and a payload; "": none.
func (w *Writer) UpsertPayload(ctx context.Context, id string, vector []float32, payload string) error {
	text, err := payloadText(payload)
	if err != nil {
		return err
	}
	defer C.free(unsafe.Pointer(text))
	return w.add(ctx, id, func(cid *C.char) C.int {
		return C.kith_batch_upsert_payload(w.batch, cid, floats(vector), C.size_t(len(vector)), text)
	})
}

// Delete removes id; one that is not there is no error here.
func (w *Writer) Delete(ctx context.Context, id string) error {
	return w.add(ctx, id, func(cid *C.char) C.int { return C.kith_batch_delete(w.batch, cid) })
}

func (w *Writer) add(ctx context.Context, id string, put func(*C.char) C.int) error {
	if w.pipe == nil {
		return ErrClosed
	}
	if w.err != nil {
		return w.err
	}
	cid, err := cString(id, BadID)
	if err != nil {
		return err
	}
	defer C.free(unsafe.Pointer(cid))
	rc := put(cid)
	if Code(rc) == TooLarge && C.kith_batch_count(w.batch) > 0 { // this one begins the next batch
		if err := w.submit(ctx); err != nil {
			return err
		}
		rc = put(cid)
	}
	if rc < 0 {
		return failed(rc, nil, fmt.Sprintf("%q", id))
	}
	if int(C.kith_batch_count(w.batch)) >= w.size || C.kith_batch_bytes(w.batch) >= 1<<20 {
		return w.submit(ctx)
	}
	return nil
}

func (w *Writer) submit(ctx context.Context) error {
	n := int(C.kith_batch_count(w.batch))
	for n > 0 && w.err == nil {
		rc := C.kith_pipe_submit(w.pipe, w.batch, C.uint64_t(w.next))
		if rc == 0 {
			w.sent[w.next] = n
			w.next++
			C.kith_batch_clear(w.batch)
			return nil
		}
		if rc != -11 { // -EAGAIN: as many as the pipe holds are on their way
			w.err = failed(rc, nil, "")
			break
		}
		if err := w.take(ctx); err != nil {
			return err // the batch is still at hand
		}
	}
	return w.err
}

// take waits for one answer.
func (w *Writer) take(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var token C.uint64_t
		var status C.int
		commit := C.commit_init()
		rc := C.kith_pipe_next(w.pipe, C.int(slice.Milliseconds()), &token, &status, &commit)
		switch {
		case rc < 0: // of what is on its way nobody knows what came of it
			w.err = failed(rc, nil, fmt.Sprintf("%d batches on their way", len(w.sent)))
			w.sent = map[uint64]int{}
			return w.err
		case rc == 0:
			continue
		}
		n := w.sent[uint64(token)]
		delete(w.sent, uint64(token))
		if status < 0 {
			if w.err == nil {
				w.err = failed(status, &commit.error, "")
			}
			return nil // others may still be answered
		}
		w.Count += n
		if epoch := uint64(commit.epoch); epoch > w.Epoch {
			w.Epoch = epoch
		}
		return nil
	}
}

// Flush sends what is at hand and waits for all answers.
func (w *Writer) Flush(ctx context.Context) error {
	if w.pipe == nil {
		return ErrClosed
	}
	if err := w.submit(ctx); err != nil && w.err == nil {
		return err
	}
	for len(w.sent) > 0 {
		if err := w.take(ctx); err != nil {
			return err
		}
	}
	return w.err
}

// Close ends the writer without waiting: Flush before it. A second one does nothing.
func (w *Writer) Close() error {
	if w.pipe != nil {
		C.kith_batch_free(w.batch)
		C.kith_pipe_close(w.pipe)
		w.pipe, w.batch = nil, nil
		w.index.release()
	}
	return nil
}
