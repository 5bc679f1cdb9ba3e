// A service that answers searches over HTTP from a collection that other processes share.
//
//	example -collection docs -listen 127.0.0.1:8090
//	curl 'http://127.0.0.1:8090/like?id=north&k=5'
//
// Each request has 50 ms: a search that is not done by then answers with the best so far ("cut").
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"kith"
)

type answer struct {
	Epoch uint64     `json:"epoch"`
	Cut   bool       `json:"cut"`
	Hits  []kith.Hit `json:"hits"`
}

func like(index *kith.Index, w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 50*time.Millisecond)
	defer cancel()
	k := 10
	if text := r.FormValue("k"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			http.Error(w, "k is a number from 1 to 1000", http.StatusBadRequest)
			return
		}
		k = n
	}
	found, err := index.SearchID(ctx, r.FormValue("id"), k, kith.SearchOptions{Filter: r.FormValue("filter")})
	switch {
	case found != nil: // also when the deadline cut it
	case errors.Is(err, kith.NotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case errors.Is(err, kith.BadFilter), errors.Is(err, kith.BadID):
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	default:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer{found.Epoch, found.Cut, found.Hits})
}

func main() {
	name := flag.String("collection", "docs", "the collection to search")
	listen := flag.String("listen", "127.0.0.1:8090", "address and port; port 0 takes any")
	run := flag.String("run", "", "the run directory; by default $KITH_RUN and so on")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	index, err := kith.Open(ctx, *name, kith.OpenOptions{RunDir: *run, AttachWait: 10 * time.Second, Prefault: true})
	if err != nil {
		log.Fatal(err)
	}
	defer index.Close()

	http.HandleFunc("/like", func(w http.ResponseWriter, r *http.Request) { like(index, w, r) })
	socket, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %s\n", socket.Addr())
	server := &http.Server{ReadTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		rest, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		server.Shutdown(rest)
	}()
	if err := server.Serve(socket); err != http.ErrServerClosed {
		log.Fatal(err)
	}
}
