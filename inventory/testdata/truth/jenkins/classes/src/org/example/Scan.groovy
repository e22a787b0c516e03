package org.example

class Scan {
  private final def script

  void run(String url, String credentialsId) {
    withCredentials(credentialsId) { user, password ->
      script.sh(script: "scanner -U '${user}' -P '${password}' -H '${url}'")
    }
  }

  void both(Map vars) {
    withKeys((vars.key as String).toLowerCase(), vars.secret.toLowerCase()) { script.sh 'aws s3 ls' }
  }

  def withCredentials(String credentialsId, Closure block) {
    script.withCredentials([script.usernamePassword(credentialsId: credentialsId, usernameVariable: 'U', passwordVariable: 'P')]) {
      block(script.env.U, script.env.P)
    }
  }

  private withKeys(String keyId, String secretId, Closure block) {
    script.withCredentials([
      script.string(credentialsId: keyId, variable: 'AWS_ACCESS_KEY_ID'),
      script.string(credentialsId: secretId, variable: 'AWS_SECRET_ACCESS_KEY')
    ]) {
      block()
    }
  }

  def add(common, String id) {
    def c = common.getSshCredentials(id)
    script.sh("echo '${c.getPrivateKey()}' > key; ssh-add key")
  }

  def back() {
    script.withCredentials([script.azureServicePrincipal(credentialsId: 'principal', clientIdVariable: 'C_ID', clientSecretVariable: 'C_SECRET')]) {
      script.sh 'az login --service-principal -u $C_ID -p $C_SECRET'
      script.sh 'az login --service-principal -u $ARM_CLIENT_ID -p $ARM_CLIENT_SECRET -t $ARM_TENANT_ID'
    }
  }
}
