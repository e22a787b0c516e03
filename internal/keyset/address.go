package keyset

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// addressError is a dialled address that must not be dialled. It is for the
// operator's log: what a name resolves to is not for a caller.
type addressError struct {
	addr netip.Addr
	why  string
}

func (e *addressError) Error() string {
	return fmt.Sprintf("the name led to %s, %s", e.addr, e.why)
}

// reach says which addresses may be dialled beside public ones.
type reach struct {
	private, loopback bool
	loopbackOnly      bool // without TLS
}

// control is net.Dialer.Control: it sees the address after resolution, just
// before the connection, so no second answer of a name server comes between.
func (r reach) control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("the address to dial can't be read: %w", err)
	}
	return r.check(ap.Addr())
}

// DialControl is for a [net.Dialer] of another package that fetches what is to be
// trusted: it refuses the same addresses as this one. private lets private
// networks be dialled, loopback this machine.
func DialControl(private, loopback bool) func(network, address string, conn syscall.RawConn) error {
	return reach{private: private, loopback: loopback}.control
}

// IsAddressError reports whether an error is the refusal of a dialled address.
func IsAddressError(err error) bool {
	var e *addressError
	return errors.As(err, &e)
}

// Special-purpose addresses that Go's predicates don't know (IANA registries,
// RFC 6890). 64:ff9b::/96, 2002::/16 and 2001::/32 carry an IPv4 address inside,
// which would be dialled without having been checked.
var (
	sharedRange = netip.MustParsePrefix("100.64.0.0/10")
	neverRanges = []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
		netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
		netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
		netip.MustParsePrefix("::/96"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"),
		netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"),
		netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("3fff::/20"), netip.MustParsePrefix("5f00::/16"),
		netip.MustParsePrefix("fec0::/10"),
	}
)

func (r reach) check(addr netip.Addr) error {
	addr = addr.Unmap()
	if addr.Zone() != "" {
		return &addressError{addr, "which belongs to one network interface"}
	}
	if addr.IsLoopback() {
		if r.loopback {
			return nil
		}
		return &addressError{addr, "which is this machine itself"}
	}
	if r.loopbackOnly {
		return &addressError{addr, "which is not this machine, and without TLS only this machine is asked"}
	}
	if addr.IsUnspecified() || addr.IsMulticast() || addr.IsLinkLocalUnicast() || addr.IsInterfaceLocalMulticast() {
		return &addressError{addr, "which is link-local, multicast or no host's"}
	}
	if addr.IsPrivate() || sharedRange.Contains(addr) {
		if r.private {
			return nil
		}
		return &addressError{addr, "which is in a private network, and the configuration doesn't allow that here (allow_private)"}
	}
	for _, p := range neverRanges {
		if p.Contains(addr) {
			return &addressError{addr, "which is reserved"}
		}
	}
	return nil
}
