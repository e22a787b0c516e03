package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"

	"github.com/proviso-ci/proviso/fleet"
)

// ServeAdmin takes orders on the operator's socket until ctx ends. Whoever
// reaches the socket is the operator: its directory and its file are for the
// broker's own user alone, who could read the signing keys anyway.
func (s *Server) ServeAdmin(ctx context.Context, listener net.Listener, name func(map[string]string) (string, error)) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /fleet", func(w http.ResponseWriter, r *http.Request) {
		var order fleet.Order
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFleetBody))
		if err == nil {
			err = json.Unmarshal(data, &order)
		}
		if err != nil {
			writeText(w, http.StatusBadRequest, err.Error())
			return
		}
		answer, err := s.parts.Broker.Fleet.Obey(r.Context(), order, name)
		if err != nil {
			writeText(w, http.StatusConflict, err.Error())
			return
		}
		s.parts.Logger.Info("an order of the operator was carried out", "order", order.Do, "runner", answer.Name)
		data, err = json.Marshal(answer)
		if err != nil {
			writeText(w, http.StatusInternalServerError, err.Error())
			return
		}
		w.Header()["Cache-Control"] = noStore
		writeJSON(w, http.StatusOK, data)
	})
	server := s.newHTTPServer(secured(mux))
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
