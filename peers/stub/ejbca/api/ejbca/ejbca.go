// Package ejbca stands in for the client of one certificate authority that
// SPIRE's server can be chained to. The peers' tests never configure it, and its
// module is not always to be had; SPIRE only has to compile. Every call fails:
// nothing here can issue anything. The shapes are those that SPIRE's plugin
// names, and no more.
package ejbca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
)

var errStub = errors.New("this SPIRE was built for tests, without EJBCA")

type Authenticator interface{ GetHTTPClient() (*http.Client, error) }

type MTLSAuthenticatorBuilder struct{}

func NewMTLSAuthenticatorBuilder() *MTLSAuthenticatorBuilder { return &MTLSAuthenticatorBuilder{} }

func (b *MTLSAuthenticatorBuilder) WithClientCertificate(*tls.Certificate) *MTLSAuthenticatorBuilder {
	return b
}

func (b *MTLSAuthenticatorBuilder) WithCaCertificates([]*x509.Certificate) *MTLSAuthenticatorBuilder {
	return b
}

func (b *MTLSAuthenticatorBuilder) Build() (Authenticator, error) { return nil, errStub }

type Configuration struct{ Host string }

func NewConfiguration() *Configuration { return &Configuration{} }

func (c *Configuration) SetAuthenticator(Authenticator) {}

type V1CertificateApi struct{}

type APIClient struct{ V1CertificateApi *V1CertificateApi }

func NewAPIClient(*Configuration) (*APIClient, error) { return nil, errStub }

func (*V1CertificateApi) EnrollPkcs10Certificate(context.Context) ApiEnrollPkcs10CertificateRequest {
	return ApiEnrollPkcs10CertificateRequest{}
}

type ApiEnrollPkcs10CertificateRequest struct{}

func (r ApiEnrollPkcs10CertificateRequest) EnrollCertificateRestRequest(EnrollCertificateRestRequest) ApiEnrollPkcs10CertificateRequest {
	return r
}

func (ApiEnrollPkcs10CertificateRequest) Execute() (*CertificateEnrollmentRestResponse, *http.Response, error) {
	return nil, nil, errStub
}

type CertificateEnrollmentRestResponse struct{ CertificateChain []string }

func (*CertificateEnrollmentRestResponse) GetResponseFormat() string { return "" }
func (*CertificateEnrollmentRestResponse) GetCertificate() string    { return "" }

type EnrollCertificateRestRequest struct{}

func NewEnrollCertificateRestRequest() *EnrollCertificateRestRequest {
	return &EnrollCertificateRestRequest{}
}

func (*EnrollCertificateRestRequest) SetUsername(string)                 {}
func (*EnrollCertificateRestRequest) SetPassword(string)                 {}
func (*EnrollCertificateRestRequest) SetCertificateRequest(string)       {}
func (*EnrollCertificateRestRequest) SetCertificateAuthorityName(string) {}
func (*EnrollCertificateRestRequest) SetCertificateProfileName(string)   {}
func (*EnrollCertificateRestRequest) SetEndEntityProfileName(string)     {}
func (*EnrollCertificateRestRequest) SetIncludeChain(bool)               {}
func (*EnrollCertificateRestRequest) SetAccountBindingId(string)         {}

type GenericOpenAPIError struct{}

func (*GenericOpenAPIError) Error() string { return errStub.Error() }
func (*GenericOpenAPIError) Body() []byte  { return nil }
