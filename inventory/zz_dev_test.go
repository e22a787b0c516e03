package inventory

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"
)

func TestZZDev(t *testing.T) {
	root := os.Getenv("INV_ROOT")
	if root == "" {
		return
	}
	start := time.Now()
	inv, err := Scan(context.Background(), root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("INV_JSON") != "" {
		b, _ := json.MarshalIndent(inv, "", " ")
		os.WriteFile(os.Getenv("INV_JSON"), b, 0o644)
	}
	fmt.Println(len(inv.Files), "files", len(inv.Paths), "paths", time.Since(start))
}
